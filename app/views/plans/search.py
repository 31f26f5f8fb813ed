"""Start a search for plans, in the queue."""

from __future__ import annotations

import streamlit as st

from app.jobs.search import SearchJob, why_no_search
from app.state import session
from app.state.selection import Selection
from app.widgets import evaluation, inputs, job_list
from app.widgets.job_list import submit_job
from app.widgets.panels import Panel, guarded
from app.widgets.waiting import polled

POLL = 2.0  # seconds between two checks of the queue
CHOICES = {
    "all": "timesteps, exits, readouts and networks",
    "full": "timesteps of the full network only",
    "ends": "as full, but the first step may be ε = x, and the last may reuse ε",
}


def draw_search(selected: Selection) -> None:
    """Settings, the button, and the queue."""
    if (missing := why_no_search()) is not None:
        st.caption(missing)
        return
    with st.expander("Search plans for this run", icon=":material/search:"):
        st.caption(
            "Tries plans on equal noise, keeps every trial in the run folder, then samples the best of each budget "
            "again with other noise. Closing this tab does not stop it; a cancelled search resumes."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            kind = inputs.selectbox("Search over", list(CHOICES), "plans choices", format_func=CHOICES.__getitem__)
            minutes = inputs.number_input("Minutes", 1, 24 * 60, "plans minutes", 20, width=120)
            pressed = st.button("Search", key="search plans", type="primary", disabled=not selected.run.checkpoints)
        if pressed:
            with guarded():
                submit_job(SearchJob(session.this_tab(), selected.run.path, kind, float(minutes)))
                st.rerun()
    polled(lambda: job_list.draw_jobs(evaluation.evaluate_traces), job_list.is_busy, POLL)


SEARCH = Panel("search plans", draw_search)
