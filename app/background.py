"""Work that takes longer than a page may wait: in a thread, once, and given up when nobody wants it any more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")
Stopped = Callable[[], bool]
KEPT = 64  # results
PATIENCE = 0.05  # seconds between two looks, after which Streamlit may turn to something newer


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
def _results() -> OrderedDict[Hashable, Any]:
    return OrderedDict()


def result(name: str, key: Hashable, work: Callable[[Stopped], T], text: str) -> T:
    """What `work` returns, from memory if it was asked for before; a spinner with `text` stands here meanwhile.

    The script waits, so call it where nothing else is left to draw. It never holds up the reader: when something on
    the page is used, Streamlit ends this run of the script, and the next one asks for what is wanted then. A `work`
    that is no longer wanted is told so by its argument. Raises whatever `work` raises.
    """
    known = _results()
    if key in known:
        known.move_to_end(key)
        return known[key]
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
        while True:
            try:
                known[key] = task.future.result(PATIENCE)
                break
            except TimeoutError:
                place.empty()  # here Streamlit looks whether something newer is wanted
    while len(known) > KEPT:
        known.popitem(last=False)
    return known[key]
