"""How a page waits for background work (app/jobs): with a spinner, after a pause of the reader, or by polling."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from app.jobs.results import Computation, Compute, Results
from app.state import session
from app.widgets.panels import guarded
from deediff.errors import UserError

RESULTS = Results("explorer", 64)
PATIENCE = 0.05  # seconds between two checks, at which Streamlit may switch to a newer run of the script
QUIET = 1.5  # seconds without a change of the page before slow work starts, long enough to draw it; 0: at once


def when_quiet(name: str, ready: bool, draw: Callable[[], None]) -> None:
    """Draw at once if `ready`, else after the page has not changed for a moment, so that a moving slider stays fast."""
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


def result(slot: str, key: Hashable, compute: Compute, text: str) -> Any:
    """The value of `compute`, remembered by its key; a spinner with `text` is shown until it is known.

    The script waits, so call it last. The reader need not: when something on the page is used, Streamlit ends this
    run of the script, and the next one requests what is needed then. One computation per `slot` and tab is active:
    requesting another one releases the previous. Raises UserError if the computation failed.
    """
    tab, state = session.this_tab().key, f"waiting for {slot}"
    computation = RESULTS.request(key, text, compute, tab)
    before: Computation | None = st.session_state.get(state)
    if before is not None and before is not computation:
        RESULTS.release(before, tab)
    st.session_state[state] = computation
    if computation.status.active:
        with st.spinner(text):
            place = st.empty()
            while not computation.join(PATIENCE):
                place.empty()  # here Streamlit may end this run of the script
    if computation.status.state == "failed":
        raise UserError(computation.status.error)
    return computation.value


def polled(draw: Callable[[], None], busy: Callable[[], bool], every: float) -> None:
    """Draw; while `busy`, again every so many seconds, and the whole page once at the end."""
    if not busy():
        with guarded():
            draw()
        return

    def again() -> None:
        with guarded():
            draw()
        if not busy():
            st.rerun()  # the whole page, which ends the polling

    st.fragment(again, run_every=every)()
