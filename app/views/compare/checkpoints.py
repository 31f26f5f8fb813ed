"""Two checkpoints of one run: sample trace A again with other weights, from the same noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from app.jobs.kept import SaveJob
from app.state import session
from app.state.selection import Selection
from app.widgets import evaluation, inputs, job_list
from app.widgets.job_list import submit_job
from app.widgets.panels import Panel, guarded
from app.widgets.waiting import polled
from deediff.traces.reader import Trace

POLL = 2.0  # seconds between two checks of the queue


def other_checkpoints(selected: Selection) -> dict[str, Path]:
    """The run's checkpoints that trace A was not sampled with, by training step, the newest first."""
    trace = selected.trace
    if trace is None or trace.meta.settings is None:
        return {}
    used = trace.meta.settings.checkpoint
    return {path.stem: path for path in reversed(selected.run.checkpoints) if path.name != used}


def _draw(selected: Selection) -> None:
    others = other_checkpoints(selected)
    trace: Trace | None = selected.trace
    if trace is None or trace.meta.settings is None or not others:
        return
    with st.expander("Compare checkpoints of this run", icon=":material/layers:", key="checkpoints"):
        st.caption(
            f"Samples {trace.path.name} again with other weights: same policy, steps and seeds. The new trace appears "
            "in the table, in the figure once it is evaluated, and can be chosen as B on every page."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            step = inputs.selectbox("Checkpoint, by training step", list(others), "other checkpoint", width=240)
            name = f"{trace.path.name}-checkpoint-{step}"
            exists = (selected.run.path / "traces" / name).exists()
            pressed = st.button("Sample with it", key="sample checkpoint", disabled=exists)
            evaluated = st.button("Sample and evaluate", key="evaluate checkpoint", disabled=exists)
        if exists:
            st.caption(f"It has been sampled: {name}.")
        if pressed or evaluated:
            with guarded():
                settings = replace(trace.meta.settings, checkpoint=None, checkpoint_sha256=None)
                job = SaveJob(session.this_tab(), selected.run.path, others[step], name, settings)
                submit_job(job)
                if evaluated:
                    evaluation.evaluate_traces([job.folder])
                st.rerun()
    polled(lambda: job_list.draw_jobs(evaluation.evaluate_traces), job_list.is_busy, POLL)


CHECKPOINTS = Panel("checkpoints", _draw)
