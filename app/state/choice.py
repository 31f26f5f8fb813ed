"""The one rule for a setting's value: a click, the URL, another widget, the session, the default, in this order.

1. A **click** in a figure or gallery, or a button: `click` was called since the last run of the script.
2. The **URL**, where a link was opened or the browser went back (`link.requested`). A value that cannot be used is
   reported in a warning, and the rule continues. Going back to a URL without the value leads to the default.
3. **Another widget** that this one follows, in the run of the script in which that one moved (`led`).
4. The **session**: the value that the widget shows already, fitted to what is possible now (another trace has other
   timesteps and fewer samples).
5. The **default**.

The result is handed to the widget as its default (`widget_default`), and the widget's value is written into the URL.
`resolve` applies the rule to a value, `resolve_names` to a list of names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

from app.state import link

T = TypeVar("T")
Read = Callable[[str], T | None]  # a value from the text in the URL; None where that is not possible
Fit = Callable[[Any], T | None]  # a click's or the session's value made possible; None where it cannot be
CLICKED = "clicked"  # session state: clicks that the next run of the script takes over
IMPOSSIBLE = "which is not possible here"


def click(values: dict[str, object]) -> None:
    """Set values for the next run of the script; for callbacks. None leaves a value as it is."""
    pending = st.session_state.setdefault(CLICKED, {})
    pending.update({key: value for key, value in values.items() if value is not None})


def end_clicks() -> None:
    """Drop the clicks of before this run of the script, once they have been resolved."""
    st.session_state.pop(CLICKED, None)


def resolve(
    key: str,  # in the URL
    default: T,
    read: Read[T],
    fit: Fit[T] | None = None,  # none: as the URL's text is read
    led: T | None = None,  # the value of the widget that this one follows, if that one moved
    state: str | None = None,  # key in the session, where it differs
    impossible: str = IMPOSSIBLE,  # end of the warning about the URL's value
) -> T:
    """The value of a setting by the rule above."""
    fitted = fit or (lambda value: read(str(value)))
    text = link.requested(key)
    opened = None if text is None else read(text)
    if text is not None and opened is None:
        link.warn(f"The link sets {key} = {link.short(text)}, {impossible}; this is ignored.")
    clicked = st.session_state.get(CLICKED, {}).get(key)
    shown = None if link.removed(key) else st.session_state.get(state or key)
    for value in (clicked, opened, led, shown):
        if value is not None and (found := fitted(value)) is not None:
            return found
    return default


def resolve_names(
    key: str,  # in the URL as in the session
    default: Sequence[str],
    possible: Sequence[str],
    what: str,  # e.g. "run", for the warning about a missing name
    led: Sequence[str] | None = None,
    keep: bool = False,  # names of the session that are not possible now, such as those of a run that is not shown
) -> list[str]:
    """The same of a list of names."""
    text = link.requested(key)
    if text is not None:
        names = link.parted(text)
        for name in names:
            if name not in possible:
                link.warn(f"The link names the {what} “{link.short(name)}”, which does not exist.")
    elif led is not None:
        names = list(led)
    elif link.removed(key):
        names = list(default)
    else:
        names = st.session_state.get(key, list(default))
        if keep:
            return list(names)
    return [name for name in names if name in possible]


def widget_default(key: str, value: Any) -> Any:
    """The default to give to a widget of this key so that it shows `value`.

    A widget that shows another value is set through the session state, once, and takes no default (None). A value set
    this way is sent to the browser with one answer only: set in every run, it would undo what the reader has moved
    since; and where a second answer overtakes the first, as on a slow start, the widget would show its lowest value.
    """
    if key in st.session_state and st.session_state[key] != value:
        st.session_state[key] = value
        return None
    return value
