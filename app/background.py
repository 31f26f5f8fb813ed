"""Work that takes longer than a page may wait: done once, in a thread, while the page stays usable."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from typing import Any, TypeVar

import streamlit as st

T = TypeVar("T")
KEPT = 64  # results
AT_ONCE = 0.2  # seconds that a page waits for what is quick


class Worker:
    """One thread for all sessions; it remembers its latest results. Never refers to screens."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._known: OrderedDict[Hashable, Future[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, key: Hashable, work: Callable[[], T], wait: float = AT_ONCE) -> T | None:
        """The result of `work`, or None while it is being done. Raises whatever `work` raised."""
        with self._lock:
            if key not in self._known:
                self._known[key] = self._pool.submit(work)
            self._known.move_to_end(key)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)[1].cancel()
            future = self._known[key]
        try:
            return future.result(wait)
        except TimeoutError:
            return None


@st.cache_resource
def worker() -> Worker:
    """The process's only one."""
    return Worker()


def poll(name: str, draw: Callable[[], bool]) -> None:
    """Draw a part of the page; while it returns False, something is missing and it is drawn again and again."""
    waiting = f"waiting for {name}"

    def once() -> None:
        st.session_state[waiting] = not draw()
        if repeated and not st.session_state[waiting]:
            st.rerun()  # the whole page: the repetition ends

    repeated = bool(st.session_state.get(waiting))
    st.fragment(once, run_every=0.5 if repeated else None)()
    if not repeated and st.session_state[waiting]:
        st.rerun()  # start the repetition
