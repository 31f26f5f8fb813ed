"""The left side: settings, and the buttons that start a job."""

from __future__ import annotations

import streamlit as st

from app.state import cache, link, session
from app.state.choice import resolve
from app.state.selection import Selection
from app.views.live.controls import MOST_IMAGES, MOST_STEPS, is_quick, live_settings, selected_weights
from app.views.live.job import LiveJob
from app.widgets import inputs
from app.widgets.job_list import submit_job
from app.widgets.panels import Panel
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.settings import SamplingSettings

PROBLEM = "live problem"  # session state: why the latest settings cannot be sampled, shown in the place of the images
JOB, BEFORE = "job", "job before"  # session state: this tab's latest job, and the one before that has images
SETTINGS, AGAIN = "live settings", "live again"  # session state: the latest settings; whether to sample another seed
SAMPLED = "live sampled"  # in the URL once there are images: its link samples them again, where that is quick
LIVE_HELP = (
    "After the first *Sample*, every change of a setting samples at once, as when the slider is released: up to "
    f"{MOST_IMAGES} images and {MOST_STEPS} steps of a small network. Larger jobs wait for the button."
)


def current_job() -> LiveJob | None:
    """The latest job of this tab."""
    return st.session_state.get(JOB)


def draw_sampling(selected: Selection) -> None:
    """Settings and buttons."""
    assert selected.checkpoint is not None
    model, schedule = cache.get_model(selected.checkpoint)
    job = current_job()
    with link.one_step():
        settings = live_settings(selected, model, schedule)
        follow = inputs.toggle("Live mode", "live mode", True, help=LIVE_HELP)
        sampled = job is not None or bool(resolve(SAMPLED, "", {"yes": "yes"}.get))
        link.write({SAMPLED: "yes" if sampled else None})
    with st.spinner("Counting GFLOPs …"):  # once per model
        live = follow and is_quick(settings, model)
    busy = job is not None and job.status.active and not live
    with st.container(horizontal=True, gap="xsmall"):
        pressed = st.button("Sample", type="primary", width="stretch", disabled=busy, key="sample", shortcut="S")
        st.button("Another seed", width="stretch", disabled=busy, key="reseed", shortcut="N", on_click=_next_seed)
    again = st.session_state.pop(AGAIN, False) and not busy
    weights = selected_weights(selected)
    changed = live and sampled and st.session_state.get(SETTINGS) != (settings, weights)
    if pressed or again or changed:
        _start(model, schedule, settings, weights, follows=not (pressed or again))
        if not live and current_job() is not job:
            st.rerun()  # disables the buttons


def _start(model: EarlyExitModel, schedule: Schedule, settings: SamplingSettings, weights: str, follows: bool) -> None:
    """Replace the tab's job; a job that follows a slider may reuse the full network's images."""
    st.session_state[SETTINGS] = settings, weights
    st.session_state[PROBLEM] = None
    with st.spinner("Preparing …"):
        try:
            job = LiveJob(session.this_tab(), model, schedule, settings, weights, remember=follows)
        except UserError as error:
            st.session_state[PROBLEM] = str(error)
            return
    if (before := current_job()) is not None:
        before.cancel()
        if before.early is not None:
            st.session_state[BEFORE] = before  # on screen until the new job has images
    st.session_state[JOB] = job
    submit_job(job)


def _next_seed() -> None:
    st.session_state["live seed"] += 1
    st.session_state[AGAIN] = True


CONTROLS = Panel("live controls", draw_sampling)
