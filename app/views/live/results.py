"""What a live job has sampled so far: figures, three grids at equal seeds, and where each image left."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import streamlit as st

from app.views.live.figures import exit_trajectories
from app.views.live.job import LiveJob, Side
from app.widgets import findings, gallery
from app.widgets.formatting import percent
from app.widgets.image_difference import AMPLIFY, LEGEND, image_difference
from app.widgets.panels import heading
from app.widgets.plot import chart, selects

HELP = (
    "Left and middle start from the same noise; under each image a strip shows its exit layer at every step, "
    "dark for early and bright for late, as in the heatmaps. Both show the predicted clean image x̂₀ while they denoise."
)


def draw(job: LiveJob) -> None:
    """Everything there is."""
    full, early = job.full, job.early
    if full is None or early is None:
        return
    done = job.status.state == "done"  # what was cancelled stays as far as it came
    draw_figures(job, full, early, so_far=not done)
    draw_grids(job, full, early)
    if done:
        draw_paths(job, early)


def draw_figures(job: LiveJob, full: Side, early: Side, so_far: bool) -> None:
    """Promised GFLOPs and measured seconds of both twins."""
    a, b = job.gflops(full, early=False), job.gflops(early, early=True)
    if a is None or b is None:
        return
    yet = ", so far" if so_far else ""
    with st.container(horizontal=True, key="live_figures", gap="medium"):
        st.metric(f"GFLOPs per image and step{yet}, promised", f"{a:.4g} → {b:.4g} ({percent(b, a)})",
                  width="content", help="Full network → early exit: counted exits × the cost of each exit, UEMs "
                  "included. What is saved if every saved FLOP is saved time.")  # fmt: skip
        before = full.seconds * min(1.0, early.step / full.step)  # the remembered twin is further
        how = "Full network → early exit: time in the sampler, for all images and all steps, after one warm-up step. "
        how += "Other work on this machine disturbs it."
        seconds, label = f"{before:.2f} → {early.seconds:.2f}", "Seconds, measured"
        saved = f"{percent(early.seconds, before)}, {before / early.seconds:.2f}×"
        if full.remembered:
            label, saved = f"{label} (full: before)", f"≈ {saved}"
            how += " The full network's were measured by an earlier job: press *Sample* to measure both side by side."
        seconds += f" ({saved})"
        st.metric(label + yet, seconds, width="content", help=how)
        ratio = early.exit_layers.mean() / job.num_blocks
        how = f"Mean exit layer / {job.num_blocks} of the early-exit twin, N = {early.exit_layers.size}."
        st.metric(f"Layer ratio{yet}", f"{ratio:.3f}", width="content", help=how)


def draw_grids(job: LiveJob, full: Side, early: Side) -> None:
    """Full network, early exit, and their difference, at equal seeds."""
    blocks = job.num_blocks
    amplified, change = image_difference(early.images, full.images)
    mean_exit = early.exit_layers.mean(axis=1)
    plain, exits, delta = [], [], []
    for k in range(len(amplified)):
        which = f"image {k}"
        plain.append(gallery.Tile(gallery.encode(full.images[k]), which, f"{which}, full network", full.exit_layers[k]))
        hover = f"{which}, mean exit layer {mean_exit[k]:.3f} of {blocks}; differs from its twin by {change[k]:.2f}"
        caption = f"exits at {mean_exit[k]:.1f}"
        exits.append(gallery.Tile(gallery.encode(early.images[k]), caption, hover, early.exit_layers[k]))
        delta.append(gallery.Tile(gallery.encode(amplified[k]), f"Δ {change[k]:.1f}", hover, place=True))
    steps = job.settings.steps
    taken = f"{steps}" if early.step == steps else f"{early.step} of {steps}"
    names = ("Full network", f"Early exit, {job.settings.policy_in_words}", f"Difference × {AMPLIFY}")
    columns = math.ceil(math.sqrt(len(plain)))
    for column, name, tiles in zip(st.columns(3), names, (plain, exits, delta), strict=True):
        with column:
            st.markdown(f"**{name}**", help=HELP)
            gallery.show(f"live {name.partition(',')[0]}", tiles, columns, job.timesteps, blocks)
    st.caption(
        f"{job.settings.weights}: {len(plain)} images of seed {job.settings.seed}, "
        f"{job.settings.solver.upper()} with {taken} steps. "
        f"Δ: mean absolute difference in grey levels (0 – 255). {LEGEND} "
        f"Strips: exit layer over time, dark = 0, bright = {blocks}."
    )


def draw_paths(job: LiveJob, early: Side) -> None:
    """Exit layers over time, one row per image."""
    exits = early.exit_layers

    def table() -> pd.DataFrame:
        image, step = np.indices(exits.shape)
        times = np.asarray(job.timesteps)[step.ravel()]
        return pd.DataFrame(
            {"image": image.ravel(), "step": step.ravel(), "timestep": times, "exit_layer": exits.ravel()}
        )

    title = findings.about_exits(exits.mean(axis=0, dtype=np.float64), job.num_blocks)
    heading(
        title,
        f"exit layer of each image at each step · measured, {len(exits)} images",
        "Each row is one image, each column one step; hover for the exact layer. "
        "Under a threshold the exit layer is the first i with u_i ≤ τ (Eq. 5), or all blocks when there is none.",
        table,
        "live exit layers",
    )
    figure = exit_trajectories(exits, job.timesteps, job.num_blocks)
    chart(figure, "plot trajectories", title, selects(x="timestep"))
