"""The URL: read when a link is opened or the browser goes back, written after every change.

Every value is written, defaults included, so that a link shows the same after runs or traces are added. (Widgets that
Streamlit binds to the URL omit their default.) A key without a value is left out; when the browser goes back to a URL
without it, the value is the default again. Keys that a page does not use are removed, those of a link with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

EVER = "link ever written"  # session state: every (key, value) that this session has put into the URL
USED = "link used"  # the keys that this run of the script has read or written
BATCH = "link to write"  # values collected by `one_step`
NO_NAMES = "none"  # an empty list
LONGEST = 60  # characters of a value in a sentence
NEW, SHOWN = "link warnings", "link warnings on screen"


def requested(key: str) -> str | None:
    """The URL's value of a key, where this session did not write it; None when there is nothing new.

    When the browser went back, every value of the URL counts. Else those of this session do not: one that it wrote
    earlier may arrive late, when the reader is faster than the browser's address bar.
    """
    _use(key)
    value = st.query_params.get(key)
    return value if _went_back() or (key, value) not in st.session_state.get(EVER, ()) else None


def removed(key: str) -> bool:
    """Whether the browser went back to a URL without this key."""
    return _went_back() and key not in st.query_params


def _use(*keys: str) -> None:
    st.session_state.setdefault(USED, set()).update(keys)


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
    _use(*texts)
    for key in values:
        if key not in texts and key in st.query_params:
            _report_unused(key)
            del st.query_params[key]
    if any(st.query_params.get(key) != text for key, text in texts.items()):
        st.query_params.update(texts)
    st.session_state.setdefault(EVER, set()).update(texts.items())


def remove_unused() -> None:
    """Remove the keys that this run of the script has not used, and report those that came with a link."""
    write(dict.fromkeys(key for key in st.query_params if key not in st.session_state.get(USED, ())))
    st.session_state[USED] = set()


def _report_unused(key: str) -> None:
    value = st.query_params[key]
    if key not in st.session_state.get(USED, ()) and (key, value) not in st.session_state.get(EVER, ()):
        warn(f"The link sets {short(key)} = {short(value)}, which is not used here; this is ignored.")


def short(text: str) -> str:
    """A value of the URL for a sentence."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def warn(sentence: str) -> None:
    """Report a value of the URL that cannot be used."""
    st.session_state.setdefault(NEW, []).append(sentence)


def warnings() -> list[str]:
    """The warnings of this run of the script, or the latest ones until the URL changes."""
    here = st.query_params.to_dict()
    if new := st.session_state.pop(NEW, []):
        st.session_state[SHOWN] = list(dict.fromkeys(new)), here
    sentences, url = st.session_state.get(SHOWN, ([], here))
    if url != here:
        st.session_state.pop(SHOWN, None)
        return []
    return sentences
