"""The queue on screen: order and progress of the jobs, buttons to cancel them, and the results that were kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from app.jobs.kept import CalibrateJob, EvaluateJob, SaveJob
from app.jobs.queue import QUEUE, Job
from app.jobs.search import MeasureJob, SearchJob
from app.state import session
from app.state.selection import select

KEPT = "kept jobs"  # session state: this tab's jobs whose results are on disk


def submit_job(job: Job) -> None:
    """Submit a job to the queue; one whose result is kept is listed until the tab is closed."""
    QUEUE.submit(job)
    if job.kept:
        st.session_state.setdefault(KEPT, []).append(job)


def is_busy() -> bool:
    """Whether any job is active."""
    return bool(QUEUE.jobs())


def draw_jobs(evaluate: Callable[[Sequence[Path]], None]) -> None:
    """The active jobs, and the results of this tab's kept ones; `evaluate` is called for the button of that name."""
    jobs = QUEUE.jobs()
    if len(jobs) > 1 or any(job.kept for job in jobs):
        st.markdown(f"**{len(jobs)} job{'s' * (len(jobs) > 1)} on this device**", help="One at a time, in this order.")
        for position, job in enumerate(jobs):
            draw_active(position, job)
    for number, job in enumerate(st.session_state.get(KEPT, [])):
        if not job.status.active:
            _draw_ended(number, job, evaluate)


def draw_active(position: int, job: Job) -> None:
    """Progress of a job, and the button that ends it; `position` is its number in the queue."""
    status, mine = job.status, job.session == session.this_tab()
    owner = "this tab" if mine else "another tab"
    if status.state == "running":
        left = "" if status.seconds_left is None else f" · {status.seconds_left:.0f} seconds left"
        stage = f" · {status.stage}" if status.stage else ""
        text = f"running ({owner}): {job.title}{stage} · {status.share:.0%}{left}"
    else:
        text = f"{position} ahead ({owner}): {job.title}"
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(status.share, text)
    if mine or not job.session.connected():  # any tab may end the jobs of a closed one
        label = "Cancel" if status.state == "running" else "Withdraw"
        button.button(label, key=f"end job {id(job)}", on_click=job.cancel, width="stretch")


def _draw_ended(number: int, job: Job, evaluate: Callable[[Sequence[Path]], None]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        if job.status.state == "failed":
            st.error(job.status.error)
        elif job.status.state == "cancelled":
            st.caption(f"Cancelled: {job.title}.")
        elif isinstance(job, SaveJob):
            name = job.folder.name
            st.success(f"Saved {job.settings.num_samples} images as trace {name}.")
            opened = st.button("Open as trace A", key=f"open {number}", on_click=select, kwargs={"trace": name})
            evaluated = st.button("Evaluate", key=f"evaluate {number}", on_click=evaluate, args=([job.folder],))
            if opened or evaluated:
                st.rerun()  # the whole page: this may be drawn in a fragment
        elif isinstance(job, SearchJob):
            st.success(f"Searched plans for {job.folder.name}: see *Plans*.")
        elif isinstance(job, MeasureJob):
            st.success(f"Measured plan {job.name} of {job.folder.name}: see *Plan designer*.")
        elif isinstance(job, CalibrateJob):
            st.success(f"Calibrated {job.folder.parent.parent.name}: see *Uncertainty*.")
        elif isinstance(job, EvaluateJob):
            results = ", ".join(f"{q.metric} {q.value:.3g}" for q in job.results)
            st.success(f"{job.folder.name}: {results} (see *Compare*).")
            for problem in job.problems:
                st.warning(problem)
