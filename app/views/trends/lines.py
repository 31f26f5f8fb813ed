"""Mean exit layer per timestep for several thresholds and traces at once (the blog's Figure 6)."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from app.state import link
from app.state.selection import STEP, Selection, stops
from app.views.trends.exits import label, measurement, titled
from app.widgets import figures, inputs
from app.widgets.figures import Line
from app.widgets.panels import Panel, Picture, mark, needs_trace
from app.widgets.pictures.over_time import mean_exit_lines
from app.widgets.plot import selects
from deediff.analysis.trends import mean_exit_layer
from deediff.traces.reader import Trace

ALSO = "also"  # key of the further thresholds, in the URL as in the session


def choose_thresholds(selection: Selection) -> None:
    """Further thresholds to estimate, in the URL."""
    trace = selection.trace
    if trace is None or selection.threshold is None:
        return
    lowest, highest = stops(trace)
    options = [f"{round(float(tau), 3):g}" for tau in np.arange(lowest, highest + STEP / 2, STEP)]
    chosen = inputs.names(
        "Also estimate τ =", options, ALSO, what="threshold", placeholder="further thresholds", max_selections=6
    )
    link.write({ALSO: link.joined(chosen) if chosen else None})


def _lines(selection: Selection) -> list[Line]:
    trace = selection.trace
    assert trace is not None
    traces = [trace, *selection.siblings]
    lines = []
    if any(measured.meta.is_full for measured in traces):
        lines.append(Line("full network", np.full(len(trace.timesteps), float(trace.num_blocks)), figures.FULL))
    drawn = [measured for measured in sorted(traces, key=label) if _is_drawn(measured, selection)]
    shades = iter(figures.ordered_colors(sum(_color(measured, selection) is None for measured in drawn)))
    for measured in drawn:
        color = _color(measured, selection) or next(shades)
        name = label(measured) if measured.meta.imported else f"{label(measured)} measured"
        lines.append(Line(name, mean_exit_layer(measured.summary.exits), color))
    spare = iter(figures.OTHERS * 8)
    estimates = [(trace.what_if(float(tau)), next(spare)) for tau in st.session_state.get(ALSO, [])]
    if selection.answer is not None:
        estimates.append((selection.answer, figures.A))
    for answer, color in estimates:
        lines.append(Line(f"τ = {answer.threshold:g} estimated", mean_exit_layer(answer.exits), color, estimated=True))
    return lines


def _is_drawn(measured: Trace, selection: Selection) -> bool:
    """Traces at a threshold, and A and B; the full network has its own line, other policies need to be A or B."""
    policy = measured.meta.title
    return policy != "never" and (_color(measured, selection) is not None or policy.startswith("threshold:"))


def _color(measured: Trace, selection: Selection) -> str | None:
    if selection.trace is measured:
        return figures.A
    if selection.other is not None and measured.path == selection.other.path:
        return figures.B
    return None


def draw_lines(selection: Selection) -> Picture:
    """Estimates at the slider's and further thresholds, and every trace measured with the same solver and steps."""
    trace = selection.trace
    assert trace is not None
    lines = _lines(selection)
    title = "Measured mean exit layer per timestep"
    if selection.answer is not None:
        found = measurement(selection)
        ratio = selection.answer.layer_ratio if found is None else found.cost.layer_ratio(found.summary.exits)
        at = f"τ = {selection.threshold:g}" if found is None else label(found)
        mean = f"at {at} a sample runs {ratio * trace.num_blocks:.1f} of {trace.num_blocks} blocks on average"
        title = titled(selection, mean[0].upper() + mean[1:])
    solver = str(trace.meta.solver or "").upper()
    samples = int(trace.summary.samples)
    subtitle = f"mean exit layer per timestep · {solver}, {len(trace.timesteps)} steps · A: {samples:,} samples"
    columns = {"step": np.arange(len(trace.timesteps)), "timestep": trace.timesteps}
    table = partial(pd.DataFrame, columns | {line.name: line.values for line in lines})
    figure = mean_exit_lines(lines, trace.timesteps, trace.num_blocks, mark(selection))
    return Picture(title, subtitle, figure, table, selects(x="timestep"))


THRESHOLDS = Panel("further thresholds", choose_thresholds)
LINES = Panel(
    "mean exit layer",
    draw_lines,
    [needs_trace],
    "The lower a line, the fewer blocks are run at that timestep; solid lines were sampled with exits (measured), "
    "dashed ones are counted from trace A's recorded u against τ (estimated, open loop). "
    "A sample exits where u ≤ τ, with u from Eq. 5; averaged over all steps and divided by N this is the layer ratio.",
)
