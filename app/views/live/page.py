"""Sample live: the same seeds with and without early exit, in the background."""

from __future__ import annotations

import re

import streamlit as st

from app.jobs.kept import SaveJob
from app.jobs.queue import QUEUE
from app.jobs.settings import LiveSettings
from app.state import cache, link, session
from app.state.selection import Selection, current
from app.views.live import results
from app.views.live.controls import MOST_IMAGES, MOST_STEPS, controls, is_quick
from app.views.live.job import LiveJob
from app.widgets import evaluation, inputs, job_list
from app.widgets.empty import no_checkpoint
from app.widgets.panels import guarded
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from deediff.quality.jackknife import LEAST

POLL = 0.25  # seconds between two looks at a job
SAMPLED = "live sampled"  # in the URL once there are images: its link samples them again, where that is quick
LIVE_HELP = (
    "After the first *Sample*, every change of a setting samples at once, as when the slider is released: up to "
    f"{MOST_IMAGES} images and {MOST_STEPS} steps of a small network. Bigger jobs wait for the button."
)


def current_job() -> LiveJob | None:
    """The last one that this tab asked for."""
    return st.session_state.get("job")


def start(model: EarlyExitModel, schedule: Schedule, settings: LiveSettings, follows: bool) -> None:
    """Replace the tab's job by a new one; bad settings become a sentence. One that follows a slider is in a hurry."""
    st.session_state["live asked"] = settings
    with guarded(), st.spinner("Getting ready …"):
        job = LiveJob(session.current(), model, schedule, settings, remember=follows)
        if (before := current_job()) is not None:
            before.cancel()
            if before.early is not None:
                st.session_state["job before"] = before  # stays on screen until there is something newer
        st.session_state["job"] = job
        job_list.submit(job)


def draw_controls(selected: Selection) -> None:
    """LiveSettings and the buttons that start."""
    assert selected.checkpoint is not None
    model, schedule = cache.open_model(selected.checkpoint)
    job = current_job()
    with link.at_once():
        settings = controls(selected, model, schedule)
        follow = inputs.toggle("Live mode", "live mode", True, help=LIVE_HELP)
        sampled = job is not None or link.asked(SAMPLED) is not None
        link.write({SAMPLED: "yes" if sampled else None})
    with st.spinner("Counting GFLOPs …"):  # once per model
        live = follow and is_quick(settings, model)
    busy = job is not None and job.status.active and not live
    with st.container(horizontal=True, gap="xsmall"):
        pressed = st.button("Sample", type="primary", width="stretch", disabled=busy, key="sample", shortcut="S")
        st.button("Another seed", width="stretch", disabled=busy, key="reseed", shortcut="N", on_click=_next_seed)
    again = st.session_state.pop("live again", False) and not busy
    changed = live and sampled and st.session_state.get("live asked") != settings
    if pressed or again or changed:
        start(model, schedule, settings, follows=not (pressed or again))
        if not live and current_job() is not job:
            st.rerun()  # disables the buttons


def _next_seed() -> None:
    st.session_state["live seed"] += 1
    st.session_state["live again"] = True


def draw_progress(job: LiveJob) -> None:
    """Progress and Cancel while the job is active; how it ended after that."""
    status, steps = job.status, job.settings.steps
    if status.state == "waiting":
        ahead = QUEUE.ahead_of(job)
        text = f"Waiting: {ahead} job{'s' * (ahead != 1)} ahead on this device …" if ahead else "Getting ready …"
    elif status.seconds_left is None:
        text = "Getting ready …"
    else:
        text = f"step {status.done} of {steps} · {status.seconds_left:.0f} seconds left"
    if status.active:
        bar, button = st.columns([5, 1], vertical_alignment="center")
        bar.progress(status.share, text)
        if status.state == "running":
            button.button("Cancel", key="cancel", on_click=job.cancel, width="stretch")
    elif status.state == "cancelled":
        st.warning(f"Cancelled at step {status.done} of {steps}.")
    elif status.state == "failed":
        st.error(status.error)


def draw_job() -> None:
    """The tab's job, wherever it stands, and the queue."""
    job = current_job()
    if job is None:
        st.info("Press *Sample*: the images appear here while they denoise, with and without early exit.")
    else:
        draw_progress(job)
        shown = job if job.early is not None else st.session_state.get("job before")
        if shown is not None and job.status.state != "failed":
            results.draw(shown)
    job_list.draw(evaluation.submit)


def draw_keep(selected: Selection, sampled: LiveJob) -> None:
    """Save what was sampled as a trace, with more images of the same seeds if wanted, and evaluate it."""
    assert selected.checkpoint is not None
    s = sampled.settings
    with st.expander("Keep as a trace", icon=":material/save:"), st.container(key="keep"):
        st.caption(
            "Samples the same seeds again, in the queue, and writes every decision into the run's traces; it goes on "
            f"when this tab is closed. An evaluation needs at least {LEAST} images."
        )
        left, middle, right = st.columns([3, 1, 1.4], vertical_alignment="bottom")
        plain = re.sub(r"[^\w.+=-]+", "-", f"{s.solver}{s.steps}-{s.policy_in_words}").strip("-")
        name = left.text_input("Name", f"{plain}-seed{s.seed}"[-100:])
        count = middle.number_input("Images", 1, 100_000, s.num_samples)
        full = right.checkbox(
            "u at every layer", help="record = full: asks every UEM, so that any threshold can be asked of it later."
        )
        evaluation.choose()
        wanted = LiveSettings(s.weights, s.policy, s.solver, s.steps, int(count), s.seed)
        with st.container(horizontal=True):
            save = st.button("Save as a trace", key="save")
            evaluate = st.button("Save and evaluate", key="save and evaluate", disabled=count < LEAST)
        if save or evaluate:
            with guarded():
                here = session.current()
                job = SaveJob(here, selected.run.path, selected.checkpoint, name, wanted, "full" if full else "exit")
                job_list.submit(job)
                if evaluate:
                    evaluation.submit([job.folder])
                st.rerun()


def draw() -> None:
    """The page."""
    selected = current()
    if selected.checkpoint is None:
        no_checkpoint(selected.run, "nothing can be sampled from it")
        return
    with st.container(key="live"):
        left, right = st.columns([1, 3.4], gap="medium")
    with left, guarded():
        draw_controls(selected)
    with right:
        if job_list.watching():
            st.fragment(_poll, run_every=POLL)()
        else:
            with guarded():
                draw_job()
        job = current_job()
        same = job is not None and job.settings.weights == f"{selected.run.name}, checkpoint {selected.checkpoint.stem}"
        if job is not None and same and job.status.state == "done":
            draw_keep(selected, job)


def _poll() -> None:
    with guarded():
        draw_job()
    if not job_list.watching():
        st.rerun()  # the whole page: the buttons are enabled again, and polling ends


with guarded():
    draw()
