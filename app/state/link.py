"""The URL: read when a link is opened or the browser goes back, written after every change.

Every value is written, defaults included, so that a link shows the same after runs or traces are added. (Widgets that
Streamlit binds to the URL omit their default.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

WRITTEN = "link written"  # session state: the latest values that this session put into the URL …
EVER = "link ever written"  # … and every (key, value) that it ever did
BATCH = "link to write"  # values collected by `one_step`
NO_NAMES = "none"  # an empty list
NEW, SHOWN = "link warnings", "link warnings on screen"


def requested(key: str) -> str | None:
    """The URL's value of a key, where this session did not write it; None when there is nothing new.

    A value that this session wrote earlier may arrive late, when the reader is faster than the browser's address bar:
    it counts as requested only when the browser went back.
    """
    value = st.query_params.get(key)
    if value is None or value == st.session_state.get(WRITTEN, {}).get(key):
        return None
    return None if (key, value) in st.session_state.get(EVER, ()) and not _went_back() else value


def joined(names: Iterable[str]) -> str:
    """A list as one value of the URL; an empty list differs from a missing key.

    Names are separated by commas; commas and percent signs within a name are percent-encoded.
    """
    return ",".join(map(_escaped, names)) or NO_NAMES


def parted(text: str) -> list[str]:
    """The inverse of `joined`."""
    return [] if text == NO_NAMES else [unquote(name) for name in text.split(",")]


def _escaped(name: str) -> str:
    text = name.replace("%", "%25").replace(",", "%2C")
    return text.replace("n", "%6E", 1) if text == NO_NAMES else text


def _went_back() -> bool:
    context = get_script_run_ctx()
    return context is not None and context.is_history_navigation


@contextmanager
def one_step() -> Iterator[None]:
    """Write the values of this block together: each change of the URL is one step of the browser's history."""
    batch = st.session_state[BATCH] = {}
    try:
        yield
    finally:
        del st.session_state[BATCH]
    write(batch)


def write(values: dict[str, object]) -> None:
    """Put values into the URL; None removes a key, and keys that are not given stay."""
    if BATCH in st.session_state:
        st.session_state[BATCH].update(values)
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


def warn(sentence: str) -> None:
    """Report a value of the URL that cannot be used."""
    st.session_state.setdefault(NEW, []).append(sentence)


def warnings() -> list[str]:
    """The warnings of this run of the script, or the latest ones until the URL changes."""
    here = st.query_params.to_dict()
    if new := st.session_state.pop(NEW, []):
        st.session_state[SHOWN] = list(dict.fromkeys(new)), here
    sentences, url = st.session_state.get(SHOWN, ([], here))
    return sentences if url == here else []


def open_page(path: str) -> None:
    """Switch to another page with the same selection; `st.switch_page` alone drops the query."""
    for key in (WRITTEN, EVER):  # the other page then reads every value of the URL as requested
        st.session_state.pop(key, None)
    st.switch_page(path, query_params=st.query_params.to_dict())
