"""The queue on screen: whose turn it is, how far, and how to get out of it; and what was kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from app.jobs.kept import EvaluateJob, SaveJob
from app.jobs.queue import QUEUE, Job
from app.state import session
from app.state.selection import select


def submit(job: Job) -> None:
    """Hand a job to the queue; one that is kept is listed until the tab is closed."""
    QUEUE.submit(job)
    if job.kept:
        st.session_state.setdefault("kept jobs", []).append(job)


def watching() -> bool:
    """Whether anything is going on that this page shows."""
    return bool(QUEUE.jobs())


def draw(evaluate: Callable[[Sequence[Path]], None]) -> None:
    """Every job still to do, and what became of this tab's kept ones, which `evaluate` can measure."""
    here = session.current()
    jobs = QUEUE.jobs()
    if len(jobs) > 1 or any(job.kept for job in jobs):
        st.markdown(f"**{len(jobs)} job{'s' * (len(jobs) > 1)} on this device**", help="One at a time, in this order.")
        for position, job in enumerate(jobs):
            _draw_one(position, job, mine=job.session == here)
    for number, job in enumerate(st.session_state.get("kept jobs", [])):
        if not job.status.active:
            _draw_ended(number, job, evaluate)


def _draw_one(position: int, job: Job, mine: bool) -> None:
    status = job.status
    whose = "yours" if mine else "of another tab"
    if status.state == "running":
        left = "" if status.seconds_left is None else f" · {status.seconds_left:.0f} seconds left"
        what = f" · {status.what}" if status.what else ""
        text = f"running, {whose}: {job.title}{what} · {status.share:.0%}{left}"
    else:
        text = f"{position} ahead, {whose}: {job.title}"
    bar, button = st.columns([5, 1], vertical_alignment="center")
    bar.progress(status.share, text)
    if mine or not job.session.connected():  # what a closed tab left behind is everybody's
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
            asked = st.button("Evaluate", key=f"evaluate {number}", on_click=evaluate, args=([job.folder],))
            if opened or asked:
                st.rerun()  # the whole page: this may stand in a part of it that is polled
        elif isinstance(job, EvaluateJob):
            results = ", ".join(f"{q.metric} {q.value:.3g}" for q in job.results)
            st.success(f"{job.folder.name}: {results} (see *Compare*).")
            for problem in job.problems:
                st.warning(problem)
