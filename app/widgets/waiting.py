"""Work that takes longer than a page may wait: in a thread, once, and given up when nobody wants it any more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")
Stopped = Callable[[], bool]
KEPT = 64  # results
PATIENCE = 0.05  # seconds between two looks, after which Streamlit may turn to something newer
QUIET = 1.5  # seconds without a touch of the page before such work begins, long enough to draw it; 0: at once


@dataclass
class _Task:
    """What one session waits for."""

    key: Hashable
    stop: threading.Event
    future: Future[Any]


@st.cache_resource
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="explorer")


@st.cache_resource
def _results() -> OrderedDict[Hashable, Future[Any]]:
    return OrderedDict()


def is_known(key: Hashable) -> bool:
    """Whether `result` would answer at once."""
    return key in _results()


def when_quiet(name: str, ready: bool, draw: Callable[[], None]) -> None:
    """Draw at once what is ready, and the rest when the reader has left the page alone for a moment.

    So a slider that is being moved pays for nothing that takes long.
    """
    if ready or QUIET == 0:
        draw()
        return
    due = f"{name} is due"
    st.session_state[due] = False

    def once() -> None:
        if st.session_state[due]:  # the timer's run, not the page's
            draw()
            st.rerun()  # the page, where it is ready now; this ends the timer
        st.session_state[due] = True
        st.caption(f":material/hourglass_empty: {name} …")

    st.fragment(once, run_every=QUIET)()


def result(name: str, key: Hashable, work: Callable[[Stopped], T], text: str) -> T:
    """What `work` returns, from memory if it was asked for before; a spinner with `text` stands here meanwhile.

    The script waits, so call it where nothing else is left to draw. It never holds up the reader: when something on
    the page is used, Streamlit ends this run of the script, and the next one asks for what is wanted then. A `work`
    that is no longer wanted is told so by its argument. Raises whatever `work` raises.
    """
    known = _results()
    if key in known:
        known.move_to_end(key)
        return known[key].result()
    slot = f"waiting for {name}"
    task: _Task | None = st.session_state.get(slot)
    if task is None or task.key != key or task.stop.is_set():
        if task is not None:
            task.stop.set()
            task.future.cancel()
        stop = threading.Event()
        task = st.session_state[slot] = _Task(key, stop, _pool().submit(work, stop.is_set))
    with st.spinner(text):
        place = st.empty()
        while not wait([task.future], PATIENCE).done:
            place.empty()  # here Streamlit looks whether something newer is wanted
    known[key] = task.future
    while len(known) > KEPT:
        known.popitem(last=False)
    return task.future.result()
