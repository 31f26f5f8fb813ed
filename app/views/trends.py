"""Exit trends: where samples leave, at the slider's threshold and in what was really sampled."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray

import figures
import findings
import frame
from deediff.analysis.trends import mean_exit_layer
from deediff.traces.reader import Trace
from panels import Panel, Picture, guarded, needs_trace, selects, show
from selection import Selection, measured_threshold


def exits_on_screen(selection: Selection) -> tuple[NDArray[np.int64], str]:
    """Exit counts (S, N+1), and what they are: the what-if where the trace answers it, else its own exits."""
    trace = selection.trace
    assert trace is not None
    where = f"{int(trace.summary.samples):,} samples × {len(trace.timesteps)} steps of {trace.path.name}"
    if selection.threshold is None:
        return trace.summary.exits, f"measured · {where}"
    return trace.what_if(selection.threshold).exits, f"estimated (open loop) at τ = {selection.threshold:.3f} · {where}"


def draw_heatmap(selection: Selection) -> Picture:
    """P(exit at layer | timestep)."""
    trace = selection.trace
    assert trace is not None
    exits, what = exits_on_screen(selection)
    title = findings.about_exits(mean_exit_layer(exits), trace.num_blocks)
    return Picture(
        title,
        f"P(exit at layer | timestep) · {what}",
        figures.exit_heatmap(exits, trace.timesteps, mark=figures.Mark(selection.timestep, selection.layer)),
        on_click=selects(x="timestep", y="layer"),
    )


def label(trace: Trace) -> str:
    """A measured trace in a legend."""
    tau = measured_threshold(trace)
    if tau is not None:
        return f"τ = {tau:g}"
    return trace.path.name if trace.meta.get("imported") else str(trace.meta["policy"])


def _legend(trace: Trace) -> str:
    return label(trace) if trace.meta.get("imported") else f"{label(trace)} measured"


def draw_lines(selection: Selection) -> Picture:
    """Mean exit layer per timestep: the estimate, and everything measured with the same solver and steps."""
    trace = selection.trace
    assert trace is not None
    spare = iter(figures.OTHERS * 8)
    lines = []
    if any(measured.meta["policy"] == "never" for measured in [trace, *selection.siblings]):
        whole = np.full(len(trace.timesteps), float(trace.num_blocks))
        lines.append(figures.Line("full network", whole, figures.FULL))
    for measured in sorted([trace, *selection.siblings], key=label):
        if measured.meta["policy"] == "never":
            continue
        if measured is trace:
            color = figures.A
        elif selection.other is not None and measured.path == selection.other.path:
            color = figures.B
        else:
            color = next(spare)
        lines.append(figures.Line(_legend(measured), mean_exit_layer(measured.summary.exits), color))
    title = "Measured mean exit layer per timestep"
    if selection.threshold is not None:
        answer = trace.what_if(selection.threshold)
        name = f"τ = {selection.threshold:g} estimated"
        lines.append(figures.Line(name, mean_exit_layer(answer.exits), figures.A, estimated=True))
        closest = closest_measured(selection)
        if closest is not None and abs((measured_threshold(closest) or 0) - selection.threshold) < 1e-6:
            title = findings.about_gap(answer.layer_ratio, closest.cost.layer_ratio(closest.summary.exits))
        else:
            blocks = answer.layer_ratio * trace.num_blocks
            title = f"At τ = {selection.threshold:g} a sample runs {blocks:.1f} of {trace.num_blocks} blocks on average"
    solver = str(trace.meta.get("solver") or "").upper()
    samples = int(trace.summary.samples)
    subtitle = f"mean exit layer per timestep · {solver}, {len(trace.timesteps)} steps · A: {samples:,} samples"
    return Picture(title, subtitle, figures.mean_exit_lines(lines, trace.timesteps, trace.num_blocks))


def closest_measured(selection: Selection) -> Trace | None:
    """The trace sampled at the threshold nearest to the slider: the closed-loop truth."""
    traces = [selection.trace, *selection.siblings] if selection.trace is not None else []
    candidates = [(tau, t) for t in traces if t is not None and (tau := measured_threshold(t)) is not None]
    if selection.threshold is None or not candidates:
        return None
    aim = selection.threshold
    return min(candidates, key=lambda pair: abs(pair[0] - aim))[1]


def estimate_line(selection: Selection) -> None:
    """What the slider's threshold would cost, and the nearest measurement."""
    trace = selection.trace
    if trace is None:
        return
    if selection.threshold is None:
        st.info(f"The what-if slider is disabled, because {trace.why_no_what_if}. The exits below are those measured.")
        return
    answer = trace.what_if(selection.threshold)
    with st.container(horizontal=True, key="estimate", gap="medium"):
        st.caption(f"**estimated** (open loop)  \nat τ = {selection.threshold:.3f}", width="content")
        how = "Estimated (open loop): recorded uncertainties against this τ, as if earlier exits changed nothing."
        st.metric("Layer ratio", f"{answer.layer_ratio:.3f}",
                  help=how, width="content")  # fmt: skip
        change = frame.percent(answer.gflops, trace.cost.full)
        st.metric("GFLOPs per step", f"{answer.gflops:.4g} ({change})",
                  help=f"{how} All UEMs asked on the way are counted; the full network costs {trace.cost.full:.4g}.",
                  width="content")  # fmt: skip
        closest = closest_measured(selection)
        if closest is not None:
            tau, ratio = measured_threshold(closest), closest.cost.layer_ratio(closest.summary.exits)
            st.metric("Closest measured layer ratio", f"{ratio:.3f} (τ = {tau:g})",
                      help=f"Layer ratio of {closest.path.name}, which was really sampled with exits (closed loop).",
                      width="content")  # fmt: skip


HEATMAP = Panel(
    "exit heatmap",
    [needs_trace],
    "Each column is one timestep: the brighter a cell, the more samples leave after that many blocks; the white line "
    "is the mean exit layer. A sample leaves at the first layer i whose uncertainty (Eq. 5) satisfies u_i ≤ τ.",
    draw_heatmap,
)
LINES = Panel(
    "mean exit layer",
    [needs_trace],
    "The lower a line, the fewer blocks are run at that timestep; solid lines were sampled with real exits (measured), "
    "the dotted one recounts trace A's recorded u against τ (estimated, open loop). "
    "The exit rule is u ≤ τ with u from Eq. 5; averaged over all steps and divided by N this is the layer ratio.",
    draw_lines,
)

selected = frame.current()
if not selected.run.traces:
    frame.no_trace(selected.run.path)
else:
    with guarded():
        estimate_line(selected)
    show([[(HEATMAP, 3), (LINES, 2)]], selected)
