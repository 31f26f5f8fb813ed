"""The right side: progress, figures, three grids of images at equal seeds, and their exit layers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import streamlit as st

from app.jobs.queue import QUEUE
from app.state.selection import Selection
from app.views.live.controls import selected_weights
from app.views.live.figures import exit_trajectories
from app.views.live.job import LiveJob, Side
from app.views.live.keep import draw_keep
from app.views.live.sampling import BEFORE, PROBLEM, current_job
from app.widgets import evaluation, gallery, job_list
from app.widgets.films.player import Pair, choose_mode, wipe_images, wiping
from app.widgets.findings import about_exits
from app.widgets.formatting import percent
from app.widgets.image_difference import AMPLIFY, LEGEND, image_difference
from app.widgets.panels import Panel, heading
from app.widgets.plot import chart, selects
from app.widgets.waiting import polled

POLL = 0.25  # seconds between two checks of a job
GRID_HELP = (
    "Left and middle start from the same noise; under each image a strip shows its exit layer at every step, dark for "
    "early and bright for late, as in the heatmaps. During sampling both show the predicted clean image x̂₀."
)
PATHS_HELP = (
    "Each row is one image, each column one step; hover for the exact layer. Under a threshold the exit layer is the "
    "first i with u_i ≤ τ (Eq. 5), or all blocks when there is none."
)
GFLOPS_HELP = (
    "Full network → early exit: counted exits × the cost of each exit, UEMs included. The saving if time were "
    "proportional to FLOPs."
)
SECONDS_HELP = (
    "Full network → early exit: time in the sampler, for all images and all steps, after one warm-up step. Other work "
    "on this machine disturbs it."
)
REMEMBERED_HELP = (
    "Time in the sampler with early exit, for all images and all steps. The full network's images are those of an "
    "earlier job: press *Sample* to measure both side by side."
)


def draw_results(selected: Selection) -> None:
    """The tab's latest job, the queue, and how to keep the images."""
    choose_mode()
    polled(_draw_job, job_list.is_busy, POLL)
    job = current_job()
    if job is not None and job.weights == selected_weights(selected) and job.status.state == "done":
        draw_keep(selected, job)


def _draw_job() -> None:
    job, problem = current_job(), st.session_state.get(PROBLEM)
    if problem:
        st.error(problem)
    elif job is None:
        st.info("Press *Sample* to see images here during sampling, with and without early exit.")
    else:
        _draw_progress(job)
        shown = job if job.early is not None else st.session_state.get(BEFORE)
        if shown is not None and job.status.state != "failed":
            _draw_images(shown)
    job_list.draw_jobs(evaluation.evaluate_traces)


def _draw_progress(job: LiveJob) -> None:
    """Progress and Cancel of an active job; how it ended otherwise."""
    status, steps = job.status, job.settings.steps
    if status.state == "waiting":
        ahead = QUEUE.ahead_of(job)
        text = f"Waiting: {ahead} job{'s' * (ahead != 1)} ahead on this device …" if ahead else "Preparing …"
    elif status.seconds_left is None:
        text = "Preparing …"
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


def _draw_images(job: LiveJob) -> None:
    full, early = job.full, job.early
    if full is None or early is None:
        return
    done = job.status.state == "done"
    _draw_figures(job, full, early, so_far=not done)
    _draw_grids(job, full, early)
    if done:
        _draw_paths(job, early)


def _draw_figures(job: LiveJob, full: Side, early: Side, so_far: bool) -> None:
    """Predicted GFLOPs and measured seconds of both."""
    a, b = job.gflops(full, early=False), job.gflops(early, early=True)
    if a is None or b is None:
        return
    yet = ", so far" if so_far else ""
    seconds, how = f"{early.seconds:.2f}", REMEMBERED_HELP  # other moments have other work beside them
    if not full.remembered:
        saved = f"{percent(early.seconds, full.seconds)}, {full.seconds / early.seconds:.2f}×"
        seconds, how = f"{full.seconds:.2f} → {seconds} ({saved})", SECONDS_HELP
    ratio = early.exit_layers.mean() / job.num_blocks
    ratio_help = f"Mean exit layer / {job.num_blocks} of the images with early exit, N = {early.exit_layers.size}."
    steps = early.exit_layers.shape[1]
    gflops = f"{a * steps:.4g} → {b * steps:.4g} ({percent(b, a)})"
    with st.container(horizontal=True, key="live_figures", gap="medium"):
        per_step = f"{GFLOPS_HELP} Per step: {a:.4g} → {b:.4g}."
        st.metric(f"GFLOPs per image{yet}", gflops, width="content", help=per_step)
        st.metric(f"Seconds, measured{yet}", seconds, width="content", help=how)
        st.metric(f"Layer ratio{yet}", f"{ratio:.3f}", width="content", help=ratio_help)
    budget = job.budget
    if budget is not None and not so_far and b > budget:
        st.warning(
            f"These images took {b * steps:.4g} GFLOPs each, {percent(b, budget)} from the budget of "
            f"{budget * steps:.4g}: its threshold is an open-loop estimate, and an exit changes the input of all later "
            "steps."
        )


def _draw_grids(job: LiveJob, full: Side, early: Side) -> None:
    """Full network, early exit, and their difference, at equal seeds."""
    blocks = job.num_blocks
    amplified, change = image_difference(early.images, full.images)
    mean_exit, dual = early.exit_layers.mean(axis=1), job.settings.policy.startswith("dual:")
    plain, exits, delta = [], [], []
    for k in range(len(amplified)):
        which = f"image {k}"
        plain.append(gallery.Tile(gallery.encode(full.images[k]), which, f"{which}, full network", full.exit_layers[k]))
        hover = f"{which}, mean exit layer {mean_exit[k]:.3f} of {blocks}; difference {change[k]:.2f}"
        caption = which if dual else f"exits at {mean_exit[k]:.1f}"
        exits.append(gallery.Tile(gallery.encode(early.images[k]), caption, hover, early.exit_layers[k]))
        delta.append(gallery.Tile(gallery.encode(amplified[k]), f"Δ {change[k]:.1f}", hover, place=True))
    steps = job.settings.steps
    taken = f"{steps}" if early.step == steps else f"{early.step} of {steps}"
    kind = "Two networks" if dual else "Early exit"
    titles = ("Full network", f"{kind}, {job.policy_title}", f"Difference × {AMPLIFY}")
    grids = ("Full network", "Early exit", f"Difference × {AMPLIFY}")
    columns = math.ceil(math.sqrt(len(plain)))
    if wiping():
        pairs = [Pair(a.png, b.png, b.caption) for a, b in zip(plain, exits, strict=True)]
        with st.container(key="live_wiped"):
            wipe_images("live wipe", (titles[0], titles[1]), pairs, columns)
    else:
        tiles = zip(grids, (plain, exits, delta), strict=True)
        _draw_side_by_side(job, dict(zip(titles, tiles, strict=True)), columns)
    st.caption(
        f"{job.weights}: {len(plain)} images of seed {job.settings.seed}, "
        f"{job.settings.solver.upper()} with {taken} steps. "
        f"Δ: mean absolute difference in grey levels (0 – 255). {LEGEND} "
        f"Strips: exit layer over time, dark = 0, bright = {blocks}."
    )


def _draw_side_by_side(job: LiveJob, grids: dict[str, tuple[str, list[gallery.Tile]]], columns: int) -> None:
    """Three grids under titles of one line, so that they are aligned."""
    with st.container(key="live_grids"):
        beside = st.columns(3)
    for column, (title, (grid, tiles)) in zip(beside, grids.items(), strict=True):
        with column:
            st.header(title, anchor=False, help=f"{title}. {GRID_HELP}")  # the title may be cut off
            gallery.gallery(f"live {grid}", tiles, columns, job.timesteps, job.num_blocks)


def _draw_paths(job: LiveJob, early: Side) -> None:
    """Exit layers over time, one row per image."""
    exits = early.exit_layers

    def table() -> pd.DataFrame:
        image, step = np.indices(exits.shape)
        times = np.asarray(job.timesteps)[step.ravel()]
        return pd.DataFrame(
            {"image": image.ravel(), "step": step.ravel(), "timestep": times, "exit_layer": exits.ravel()}
        )

    title = about_exits(exits.mean(axis=0, dtype=np.float64), job.num_blocks)
    subtitle = f"exit layer of each image at each step · measured, {len(exits)} images"
    heading(title, subtitle, PATHS_HELP, table, "live exit layers")
    figure = exit_trajectories(exits, job.timesteps, job.num_blocks)
    chart(figure, "plot trajectories", title, selects(x="timestep"), f"{job.weights} · {subtitle}")


RESULTS = Panel("live results", draw_results)
