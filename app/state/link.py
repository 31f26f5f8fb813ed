"""The selection in the URL: read when a link is opened or the browser goes back, written after every change.

Every value is written, defaults too: a link must show the same after somebody adds a run or a trace. (Widgets
that Streamlit binds to the URL leave out what is their default.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

WRITTEN = "link written"  # session state: what this session last put into the URL …
EVER = "link ever written"  # … and every (key, value) that it ever did
LATER = "link to write"  # what is to be written together
NOTHING = "none"  # an empty list
NEW, KEPT = "link complaints", "link complaints on screen"


def asked(key: str) -> str | None:
    """What the URL asks for and this session did not put there; None when there is nothing new.

    A value of our own may come back late, when the reader is faster than the browser's address: that is not asking.
    It is when the browser goes back.
    """
    value = st.query_params.get(key)
    if value is None or value == st.session_state.get(WRITTEN, {}).get(key):
        return None
    return None if (key, value) in st.session_state.get(EVER, ()) and not _went_back() else value


def asked_for(key: str) -> list[str] | None:
    """The same of a key that holds a list, as `joined` writes it."""
    value = asked(key)
    return None if value is None else parted(value)


def joined(names: Iterable[str]) -> str:
    """A list in the URL; an empty one differs from none that was chosen.

    Commas separate names; what would be misread within a name is written as in a URL, so %2C is its own comma.
    """
    return ",".join(map(_escaped, names)) or NOTHING


def parted(text: str) -> list[str]:
    """The list that `joined` wrote."""
    return [] if text == NOTHING else [unquote(name) for name in text.split(",")]


def _escaped(name: str) -> str:
    text = name.replace("%", "%25").replace(",", "%2C")
    return text.replace("n", "%6E", 1) if text == NOTHING else text


def _went_back() -> bool:
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


@contextmanager
def at_once() -> Iterator[None]:
    """What is written within goes into the URL at the end: each change of it is a step on the browser's way back."""
    later = st.session_state[LATER] = {}
    try:
        yield
    finally:
        del st.session_state[LATER]
    write(later)


def write(values: dict[str, object]) -> None:
    """Put values into the URL; None leaves a key out, and keys that are not given stay."""
    if LATER in st.session_state:
        st.session_state[LATER].update(values)
        return
    texts = {key: str(value) for key, value in values.items() if value is not None}
    for key in values:
        if key not in texts and key in st.query_params:
            del st.query_params[key]
    if any(st.query_params.get(key) != text for key, text in texts.items()):
        st.query_params.update(texts)
    before = st.session_state.get(WRITTEN, {})
    st.session_state[WRITTEN] = {key: text for key, text in before.items() if key not in values} | texts
    st.session_state.setdefault(EVER, set()).update(texts.items())


def complain(sentence: str) -> None:
    """Tell the reader that a link asks for what is not there."""
    st.session_state.setdefault(NEW, []).append(sentence)


def complain_of_missing(key: str, asked: Iterable[str], there: Sequence[str]) -> None:
    """One sentence for each of the names that a link asks for in vain."""
    for name in asked:
        if name not in there:
            complain(f"The link asks for {key} “{name}”, which is not there.")


def complaints() -> list[str]:
    """What is to be said at the end of a run of the script: this one's, or the last ones until the URL changes."""
    here = st.query_params.to_dict()
    if new := st.session_state.pop(NEW, []):
        st.session_state[KEPT] = list(dict.fromkeys(new)), here
    sentences, url = st.session_state.get(KEPT, ([], here))
    return sentences if url == here else []


def open_page(path: str) -> None:
    """Go to another page with the same selection, as by a link; `st.switch_page` alone forgets it."""
    for key in (WRITTEN, EVER):  # the page that opens takes the link for somebody else's, and follows it
        st.session_state.pop(key, None)
    st.switch_page(path, query_params=st.query_params.to_dict())


def default(key: str, value: Any) -> Any:
    """What a widget of this key takes as its default in order to show `value`.

    A widget that shows something else already is set, once, and takes no default (None). A value that is set goes
    to the browser with one answer only: were it set every time, it would undo what the reader has moved meanwhile,
    and a first answer that a second one overtakes, as on a slow start, would leave the widget at its lowest stop.
    """
    if key in st.session_state and st.session_state[key] != value:
        st.session_state[key] = value
        return None
    return value
