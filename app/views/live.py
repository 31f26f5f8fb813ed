"""Sample live: the same seeds with and without early exit, in the background."""

from __future__ import annotations

import math

import numpy as np
import streamlit as st

import data
import figures
import findings
import frame
import gallery
from charts import chart
from deediff.diffusion.solvers import SOLVERS
from deediff.sampling.registry import BOUNDS, POLICIES
from deediff.traces.writer import encode_png
from jobs import Job, Settings, Side, View
from panels import guarded, heading
from selection import HIGHEST, STEP, Selection

AMPLIFY = 4
HELP = (
    "Left and middle start from the same noise; under each image a strip shows its exit layer at every step, "
    "dark for early and bright for late, as in the heatmaps. A sample leaves at the first layer whose u (Eq. 5) is ≤ τ."
)


def controls(selection: Selection) -> Settings:
    """In the order one thinks: when to exit, how to sample, how many."""
    assert selection.checkpoint is not None
    model, schedule = data.open_model(selection.checkpoint)
    kind = st.selectbox(
        "Policy", ["threshold", "fixed", "never", "other"], key="live policy", persist_state="session",
        help="threshold: exit when u ≤ τ. fixed: always leave after the same block. never: the full network. "
        "other: any policy, written as on the command line.",
    )  # fmt: skip
    policy = kind
    if kind == "threshold":
        shared = 0.1 if selection.threshold is None else selection.threshold
        if st.session_state.get("live tau followed") != shared:  # the what-if slider leads, until this one is moved
            st.session_state["live tau"] = st.session_state["live tau followed"] = shared
        tau = st.slider(
            "Threshold τ", 0.0, HIGHEST, step=STEP, format="%.3f", key="live tau", persist_state="session",
            help="Follows the what-if slider whenever that one is moved.",
        )  # fmt: skip
        policy = f"threshold:{round(tau, 3):g}"
    elif kind == "fixed":
        last = model.num_blocks
        layer = st.slider("Exit layer", 0, last, last // 2, key="live layer", persist_state="session")
        policy = f"fixed:{layer}"
    elif kind == "other":
        known = "\n".join(f"- `{entry.usage}`: {entry.help}" for entry in POLICIES.values())
        policy = st.text_input(
            "Policy, as on the command line", "schedule:ase", key="live spec", persist_state="session",
            help=f"{known}\n\n{BOUNDS}",
        )  # fmt: skip
    left, right = st.columns(2)
    solver = left.selectbox("Solver", list(SOLVERS), format_func=str.upper, key="live solver", persist_state="session")
    steps = right.number_input("Steps", 1, schedule.num_timesteps, 20, key="live steps", persist_state="session")
    count = left.number_input("Images", 1, 64, 4, key="live images", persist_state="session")
    seed = right.number_input("Seed", 0, 2**31 - 1, 0, key="live seed", persist_state="session")
    weights = f"{selection.run.name}, checkpoint {selection.checkpoint.stem}"
    return Settings(weights, policy, solver, int(steps), int(count), int(seed))


def start(selection: Selection, settings: Settings) -> None:
    """Replace the session's job by a new one; bad settings become a sentence."""
    assert selection.checkpoint is not None
    with guarded():
        model, schedule = data.open_model(selection.checkpoint)
        st.session_state["job"] = Job(model, schedule, settings).start()


def draw_progress(job: Job, view: View) -> None:
    """Progress and Cancel while the job is active; how it ended after that."""
    steps = job.settings.steps
    if view.state == "waiting":
        text = "Waiting for another sampling job to end …"
    elif view.seconds_left is None:
        text = "Getting ready …"
    else:
        text = f"step {view.step} of {steps} · {view.seconds_left:.0f} seconds left"
    if view.active:
        bar, button = st.columns([5, 1], vertical_alignment="center")
        bar.progress(view.step / steps, text)
        button.button("Cancel", key="cancel", on_click=job.cancel, width="stretch")
    elif view.state == "cancelled":
        st.warning(f"Cancelled at step {view.step} of {steps}.")
    elif view.state == "failed":
        st.error(view.error)


def draw_figures(job: Job, full: Side, early: Side, done: bool) -> None:
    """Promised GFLOPs and measured seconds of both twins."""
    a, b = job.gflops(full, early=False), job.gflops(early, early=True)
    if a is None or b is None:
        return
    so_far = "" if done else ", so far"
    with st.container(horizontal=True, key="live_figures", gap="medium"):
        per = f"per image and step{so_far}"
        st.metric(f"GFLOPs {per}, promised", f"{a:.4g} → {b:.4g} ({frame.percent(b, a)})", width="content",
                  help="Full network → early exit: counted exits × the cost of each exit, UEMs included.")  # fmt: skip
        faster = full.seconds / early.seconds
        st.metric(f"Seconds, measured{so_far}", f"{full.seconds:.2f} → {early.seconds:.2f} ({faster:.2f}×)",
                  width="content", help="Full network → early exit: time in the sampler, for all images and all steps, "
                  "after one warm-up step. Other work on this machine disturbs it.")  # fmt: skip
        ratio = early.exit_layers.mean() / job.num_blocks
        how = f"Mean exit layer / {job.num_blocks} of the early-exit twin, N = {early.exit_layers.size}."
        st.metric(f"Layer ratio{so_far}", f"{ratio:.3f}", width="content", help=how)


def draw_grids(job: Job, full: Side, early: Side) -> None:
    """Full network, early exit, and their difference, at equal seeds."""
    steps, blocks = job.settings.steps, job.num_blocks
    change = early.images.astype(np.int16) - full.images.astype(np.int16)
    amplified = np.clip(128 + AMPLIFY * change, 0, 255).astype(np.uint8)
    mean_exit = early.exit_layers.mean(axis=1)
    difference = np.abs(change).mean(axis=(1, 2, 3))
    plain, exits, delta = [], [], []
    full_bar = gallery.strip(full.exit_layers[0], steps, blocks)
    for k in range(len(change)):
        plain.append(gallery.Tile(encode_png(full.images[k]), f"image {k}", f"image {k}, full network", full_bar))
        hover = (
            f"image {k}, mean exit layer {mean_exit[k]:.2f} of {blocks}; differs from its twin by {difference[k]:.1f}"
        )
        bar = gallery.strip(early.exit_layers[k], steps, blocks)
        exits.append(gallery.Tile(encode_png(early.images[k]), f"exits at {mean_exit[k]:.1f}", hover, bar))
        delta.append(gallery.Tile(encode_png(amplified[k]), f"Δ {difference[k]:.1f}", hover, b""))
    names = ("Full network", f"Early exit, {job.settings.policy}", f"Difference × {AMPLIFY}")
    for column, name, tiles in zip(st.columns(3), names, (plain, exits, delta), strict=True):
        with column:
            st.markdown(f"**{name}**", help=HELP)
            gallery.show(tiles, columns=math.ceil(math.sqrt(len(tiles))))
    st.caption(
        f"{job.settings.weights}: {len(change)} images of seed {job.settings.seed}, "
        f"{job.settings.solver.upper()} with {steps} steps. "
        "Δ: mean absolute difference in grey levels (0 – 255); grey means no difference. "
        f"Strips: exit layer over time, dark = 0, bright = {blocks}."
    )


def draw_job() -> None:
    """The session's job, wherever it stands."""
    job: Job | None = st.session_state.get("job")
    if job is None:
        st.info("Press *Sample*: the images appear here while they denoise, with and without early exit.")
        return
    view = job.view
    draw_progress(job, view)
    if view.full is not None and view.early is not None:
        draw_figures(job, view.full, view.early, view.state == "done")
        draw_grids(job, view.full, view.early)
        if not view.active:
            exits = view.early.exit_layers
            heading(
                findings.about_exits(exits.mean(axis=0, dtype=np.float64), job.num_blocks),
                f"exit layer of each image at each step · measured, {len(exits)} images",
                "Each row is one image, each column one step; hover for the exact layer. "
                "The exit layer is the first i with u_i ≤ τ (Eq. 5), or all blocks when there is none.",
            )
            figure = figures.exit_trajectories(exits, job.timesteps, job.num_blocks)
            chart(figure, "plot trajectories", "exit layers over time")
    if st.session_state.get("job was active") and not view.active:
        st.session_state["job was active"] = False
        st.rerun()  # the whole page: Sample is enabled again, and polling ends


def draw() -> None:
    """The page."""
    selected = frame.current()
    if selected.checkpoint is None:
        st.info("This run has no checkpoint, so nothing can be sampled from it. This command trains a small model:")
        st.code("python -m trainer.run mnist_tiny", language="bash")
        return
    job: Job | None = st.session_state.get("job")
    active = job is not None and job.view.active
    st.session_state["job was active"] = active
    with st.container(key="live"):
        left, right = st.columns([1, 3.4], gap="medium")
    with left:
        settings = controls(selected)
        if st.button("Sample", type="primary", width="stretch", disabled=active, key="sample"):
            start(selected, settings)
            job = st.session_state.get("job")
            if job is not None and job.view.active:
                st.rerun()
    with right:
        st.fragment(_guarded_job, run_every=0.5 if active else None)()


def _guarded_job() -> None:
    with guarded():
        draw_job()


with guarded():
    draw()
