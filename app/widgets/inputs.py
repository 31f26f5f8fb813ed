"""Streamlit's input widgets with their values in the URL, by the rule of state/choice.py; kept from page to page.

`key` is the widget's key in the session and in the URL; further keywords go to the widget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

from app.state import link
from app.state.choice import IMPOSSIBLE, Fit, Read, resolve, resolve_names, widget_default

T = TypeVar("T")
Number = TypeVar("Number", int, float)
NOT_LINKED = "which a link may not set: type it here"


def selectbox(
    label: str, options: Sequence[T], key: str, default: T | None = None, impossible: str = IMPOSSIBLE, **more: Any
) -> T:
    """`st.selectbox`; the default is the first option unless given."""
    value = resolve(key, options[0] if default is None else default, _among(options), impossible=impossible)
    shown = widget_default(key, value)
    place = 0 if shown is None else options.index(shown)
    return _written(key, st.selectbox(label, options, place, key=key, persist_state="session", **more))


def segmented_control(label: str, options: Sequence[T], key: str, default: T, **more: Any) -> T:
    """`st.segmented_control` with exactly one option chosen."""
    shown = widget_default(key, resolve(key, default, _among(options)))
    more = {"key": key, "persist_state": "session", **more}
    chosen = st.segmented_control(label, options, default=shown, required=True, **more)
    return _written(key, default if chosen is None else chosen)


def number_input(
    label: str,
    low: Number,
    high: Number,
    key: str,
    default: Number,
    led: Number | None = None,  # as of `slider`
    **more: Any,
) -> Number:
    """`st.number_input`."""
    shown = widget_default(key, resolve(key, default, _between(low, high), led=led))
    more = {"key": key, "persist_state": "session", **more}
    return _written(key, st.number_input(label, low, high, "min" if shown is None else shown, **more))


def optional_number(
    label: str,
    low: Number,
    high: Number | None,
    key: str,
    state: str | None = None,  # key in the session, where it differs
    impossible: str = IMPOSSIBLE,
    **more: Any,
) -> Number | None:
    """`st.number_input` of a number from `low`, or none; a number of before above `high` becomes `high`."""
    unbounded = type(low)(2**31)  # a browser has no infinity

    def fit(value: Number) -> Number:
        return value if high is None else min(value, high)

    read: Read[Number | None] = _between(low, unbounded if high is None else high)
    value = resolve(key, None, read, fit, state=state, impossible=impossible)
    state = state or key
    more = {"key": state, "persist_state": "session", **more}
    return _written(key, st.number_input(label, low, high, widget_default(state, value), **more))


def slider(
    label: str,
    stops: tuple[Number, Number, Number],  # lowest, highest, step
    key: str,
    default: Number,
    led: Number | None = None,  # the value of a widget that this one follows, if that one moved
    fit: Fit[Number] | None = None,
    impossible: str = IMPOSSIBLE,
    **more: Any,
) -> Number:
    """`st.slider`."""
    low, high, step = stops
    value = resolve(key, default, _between(low, high), fit, led, impossible=impossible)
    more = {"key": key, "persist_state": "session", **more}
    return _written(key, st.slider(label, low, high, widget_default(key, value), step, **more))


def range_slider(label: str, low: int, high: int, key: str, **more: Any) -> tuple[int, int]:
    """`st.slider` with two ends; from end to end by default."""
    pairs = {f"{a}-{b}": (a, b) for a in range(low, high + 1) for b in range(a, high + 1)}
    shown = widget_default(key, resolve(key, (low, high), pairs.get, lambda pair: pairs.get("{}-{}".format(*pair))))
    value = st.slider(label, low, high, shown or (low, high), key=key, persist_state="session", **more)
    link.write({key: "{}-{}".format(*value)})
    return value


def select_slider(
    label: str, options: Sequence[Number], key: str, default: Number, impossible: str = IMPOSSIBLE, **more: Any
) -> Number:
    """`st.select_slider` of numbers; a number of before that is no option becomes the nearest one."""

    def nearest(value: Number) -> Number:
        return min(options, key=lambda option: abs(option - value))

    shown = widget_default(key, resolve(key, default, _among(options), nearest, impossible=impossible))
    if len(options) < 2:  # nothing to slide
        return _written(key, options[0])
    return _written(key, st.select_slider(label, options, shown, key=key, persist_state="session", **more))


def pagination(pages: int, key: str, **more: Any) -> int:
    """`st.pagination`."""
    shown = widget_default(key, resolve(key, 1, _between(1, pages)))
    return _written(key, st.pagination(pages, default=shown or 1, key=key, persist_state="session", **more))


def toggle(label: str, key: str, default: bool, **more: Any) -> bool:
    """`st.toggle`."""
    shown = widget_default(key, resolve(key, default, _among([True, False])))
    return _written(key, st.toggle(label, bool(shown), key=key, persist_state="session", **more))


def text_input(label: str, key: str, default: str = "", linked: Sequence[str] | None = None, **more: Any) -> str:
    """`st.text_input`; where `linked` is given, a link carries these texts only, such as those that name no file."""

    def read(text: str) -> str | None:
        return text if linked is None or text in linked else None

    shown = widget_default(key, resolve(key, default, read, str, impossible=NOT_LINKED)) or ""
    value = st.text_input(label, shown, key=key, persist_state="session", **more)
    link.write({key: read(value) or None})
    return value


def names(
    label: str,
    options: Sequence[str],
    key: str,
    default: Sequence[str] = (),
    what: str = "",  # e.g. "run", for the warning about a missing name; the key where not given
    possible: Sequence[str] | None = None,  # names that exist, beyond the options
    led: Sequence[str] | None = None,
    **more: Any,
) -> list[str]:
    """`st.multiselect` of names."""
    chosen = resolve_names(key, default, options if possible is None else possible, what or key, led)
    shown = widget_default(key, [name for name in chosen if name in options])
    st.multiselect(label, options, shown, key=key, persist_state="session", **more)
    return st.session_state[key]


def unseen(key: str, default: T, options: Sequence[T]) -> T:
    """The value of such a widget of another page, where this page uses it, too."""
    value = st.session_state[key] = resolve(key, default, _among(options))
    return _written(key, value)


def _written(key: str, value: T) -> T:
    link.write({key: value})
    return value


def _among(options: Sequence[T]) -> Read[T]:
    return {str(option): option for option in options}.get


def _between(low: Number, high: Number) -> Callable[[str], Number | None]:
    def read(text: str) -> Number | None:
        try:
            value = type(low)(text)
        except ValueError:
            return None
        return value if low <= value <= high else None

    return read
