"""Keep the sampled seeds as a trace of the run, with more images if wanted, and evaluate it."""

from __future__ import annotations

import re
from dataclasses import replace

import streamlit as st

from app.jobs.kept import SaveJob
from app.state import session
from app.state.selection import Selection
from app.views.live.job import LiveJob, short_policy
from app.widgets import evaluation
from app.widgets.job_list import submit_job
from app.widgets.panels import guarded
from deediff.quality.jackknife import LEAST


def draw_keep(selected: Selection, sampled: LiveJob) -> None:
    """Name, number of images, metrics, buttons."""
    assert selected.checkpoint is not None
    s = sampled.settings
    with st.expander("Keep as a trace", icon=":material/save:"), st.container(key="keep"):
        st.caption(
            "Samples the same seeds again, in the queue, and writes every decision into the run's traces; closing this "
            f"tab does not stop it. An evaluation needs at least {LEAST} images."
        )
        left, middle, right = st.columns([3, 1, 1.4], vertical_alignment="bottom")
        plain = re.sub(r"[^\w.+=-]+", "-", f"{s.solver}{s.steps}-{short_policy(s)}").strip("-")
        name = left.text_input("Name", f"{plain}-seed{s.seed}"[-100:])
        count = middle.number_input("Images", 1, 100_000, s.num_samples)
        full = right.checkbox(
            "u at every layer", help="record = full: every UEM is evaluated, so that what-if answers every threshold."
        )
        evaluation.choose_evaluation()
        with st.container(horizontal=True):
            save = st.button("Save as a trace", key="save")
            evaluate = st.button("Save and evaluate", key="save and evaluate", disabled=count < LEAST)
        if save or evaluate:
            with guarded():
                settings = replace(s, num_samples=int(count), record="full" if full else "exit")
                job = SaveJob(session.this_tab(), selected.run.path, selected.checkpoint, name, settings)
                submit_job(job)
                if evaluate:
                    evaluation.evaluate_traces([job.folder])
                st.rerun()
