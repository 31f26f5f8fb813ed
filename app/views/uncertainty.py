"""Uncertainty: what the UEMs say, per layer and timestep."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray

import figures
import findings
import frame
from deediff.traces.reader import Trace
from panels import Panel, Picture, needs_uncertainty, show
from selection import Selection


def on_screen(selection: Selection) -> list[tuple[str, Trace, str]]:
    """Letter, trace and colour of those that hold u."""
    pairs = [("A", selection.trace, figures.A), ("B", selection.other, figures.B)]
    return [(letter, t, color) for letter, t, color in pairs if t is not None and t.meta["has_uncertainty"]]


def highest(selection: Selection) -> float:
    """The colour scale's end: the same for both traces, rounded up."""
    return float(np.ceil(max(np.nanmax(t.summary.mean_uncertainty()) for _, t, _ in on_screen(selection)) * 20) / 20)


def heatmap(selection: Selection, trace: Trace | None, letter: str) -> Picture:
    """Mean u of one trace."""
    assert trace is not None
    summary = trace.summary
    mean = summary.mean_uncertainty()
    full = trace.meta["record"] == "full"
    who = "all samples" if full else "those that reached the layer"
    subtitle = f"mean u per layer and timestep · trace {letter}, {int(summary.samples):,} samples · over {who}"
    figure = figures.uncertainty_heatmap(mean, summary.u_count, trace.timesteps, highest(selection))
    return Picture(findings.about_uncertainty(mean, trace.timesteps), subtitle, figure)


def spread(trace: Trace) -> NDArray[np.float64]:
    """(S, N) standard deviation of u over samples."""
    s = trace.summary
    count = np.where(s.u_count > 0, s.u_count, np.nan)
    return np.sqrt(np.maximum(s.u_square_sum / count - (s.u_sum / count) ** 2, 0))


def draw_curves(selection: Selection) -> Picture:
    """Mean u over depth at the chosen timestep."""
    step = st.session_state.get("curve step", 0)
    lines, first = [], None
    for letter, trace, color in on_screen(selection):
        row = min(step, len(trace.timesteps) - 1)
        mean = trace.summary.mean_uncertainty()[row]
        first = mean if first is None else first
        name = f"{letter}: t = {trace.timesteps[row]}"
        lines.append(figures.Line(name, mean, color, spread=spread(trace)[row]))
    assert first is not None
    assert selection.trace is not None
    t = selection.trace.timesteps[min(step, len(selection.trace.timesteps) - 1)]
    subtitle = f"mean u ± one standard deviation over samples, at t = {t} (step {step})"
    figure = figures.uncertainty_curves(lines, selection.threshold, highest(selection))
    return Picture(findings.about_depth(first), subtitle, figure)


READ = (
    "The brighter a cell, the more wrong the UEM thinks an exit there would be; both traces share one colour scale. "
    "u is Eq. 5 (a sigmoid of a linear map of the block's input), trained towards tanh|error| of that exit (Eq. 6–7)."
)
HEATMAP_A = Panel("u of A", [needs_uncertainty], READ, lambda s: heatmap(s, s.trace, "A"))
HEATMAP_B = Panel("u of B", [needs_uncertainty], READ, lambda s: heatmap(s, s.other, "B"))
CURVES = Panel(
    "u over layers",
    [needs_uncertainty],
    "One line per trace at the timestep chosen above; where it lies under the dotted τ the mean sample would leave. "
    "u is Eq. 5; it should fall with depth, and a rise after the middle block is the mark of a frozen backbone.",
    draw_curves,
)

selected = frame.current()
if not selected.run.traces:
    frame.no_trace(selected.run.path)
else:
    panels = [(HEATMAP_A, 1.0)]
    if selected.other is not None and selected.other.meta["has_uncertainty"]:
        panels.append((HEATMAP_B, 1.0))
    trace = selected.trace
    if trace is not None and trace.meta["has_uncertainty"]:
        last = len(trace.timesteps) - 1
        if st.session_state.get("curve step", 0) > last:  # another trace may have fewer steps
            st.session_state["curve step"] = last
        st.select_slider(
            "Timestep of the curves", list(range(last + 1)), 0, key="curve step", persist_state="session",
            format_func=[f"t = {t}" for t in trace.timesteps].__getitem__,
        )  # fmt: skip
    show([panels, [(CURVES, 1.0)]] if len(panels) == 2 else [[*panels, (CURVES, 0.8)]], selected)
