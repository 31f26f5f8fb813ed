"""Compare: cost against quality of many traces, and their images at equal seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import streamlit as st

from app.state import cache, link
from app.state.selection import Selection, current
from app.state.traces import key_of, open_traces, read_qualities
from app.views.compare import points
from app.views.compare.allowance import allowance_panel
from app.views.compare.changes import is_known, known_change
from app.views.compare.checkpoints import CHECKPOINTS
from app.views.compare.choices import choose_axis, choose_runs, pick_traces
from app.views.compare.images import images_panel
from app.views.compare.plans import plan_axes, plan_points, read_fronts
from app.views.compare.plots import plot_panel, published_panel
from app.views.compare.points import Axis, Point
from app.views.compare.reading import Lines, choose_lines, reading_panel
from app.views.compare.table import table_panel
from app.widgets import inputs
from app.widgets.empty import no_trace, offer_evaluation
from app.widgets.panels import guarded, show
from app.widgets.waiting import polled
from deediff.runs import Run, list_runs
from deediff.traces.reader import Trace

POLL = 0.7  # seconds between two checks for compared images


@dataclass(frozen=True)
class Comparison:
    """What is compared."""

    traces: list[Trace]
    axis: Axis | None
    cost: str  # gflops or seconds
    shown: list[Point]  # that have a value on the axis
    lines: Lines | None  # positions of the lines that are read


def comparison_controls(runs: list[Run], selected: Selection, problems: list[str]) -> Comparison:
    """Runs, measure of quality, cost, and the positions of both lines."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = choose_runs(runs, selected)
        traces, fronts = open_traces(chosen, problems), read_fronts(chosen, problems)
        quality = read_qualities(traces, problems)
        known = [*points.axes(traces, quality), *plan_axes(fronts), *points.change_axes(traces)]
        axis = with_changes(choose_axis(known), traces)
        cost = inputs.segmented_control("Cost", ["GFLOPs", "seconds"], "cost", "GFLOPs").lower()
        shown: list[Point] = []
        if axis is not None:
            shown = plan_points(fronts, axis) if axis.of_plans else points.points(traces, axis)
        lines = None if axis is None else choose_lines(shown, axis, cost)
    if traces and not any(quality.values()):
        offer_evaluation(
            "None of these traces was evaluated, so the quality axis shows the *change* of their images: the distance "
            "from the full network's images of equal seeds, not a quality.",
            traces,
        )
    return Comparison(traces, axis, cost, shown, lines)


def pending(traces: list[Trace]) -> list[str]:
    """Traces whose images are still being compared in the background."""
    by_key = {key_of(trace): trace for trace in traces}
    pairs = [(key, axis.full) for axis in points.change_axes(traces) for key in axis.readings if axis.full]
    return [key for key, full in pairs if not is_known(by_key[key], by_key[full])]


def with_changes(axis: Axis | None, traces: list[Trace]) -> Axis | None:
    """The axis with the changes that are known, if it is one of changes."""
    if axis is None or axis.full is None:
        return axis
    by_key = {key_of(trace): trace for trace in traces}
    return points.with_readings(axis, {key: known_change(by_key[key], by_key[axis.full]) for key in axis.readings})


def compare_page(selected: Selection) -> None:
    """The page."""
    runs, _ = list_runs(cache.runs_root())
    if not any(run.traces for run in runs):
        no_trace(selected.run)
        return
    problems: list[str] = []
    with link.one_step():
        found = comparison_controls(runs, selected, problems)
        traces = found.traces
        pick_traces(runs, traces, selected)
    for problem in problems:
        st.warning(problem)
    if not traces:
        st.info("Choose a run that holds traces.")
        return
    panels = [images_panel(traces), table_panel(traces), CHECKPOINTS]
    if found.axis is None:
        st.info("Nothing to draw yet: no trace was evaluated, and none is of the full network, to compare images with.")
    else:
        shown, axis, cost, lines = found.shown, found.axis, found.cost, found.lines
        read = [] if lines is None else [reading_panel(shown, axis, cost, lines)]
        answers = [plot_panel(shown, axis, cost, lines), *read, allowance_panel(shown, axis, cost)]
        panels = [*answers, *panels, published_panel(cost)]
    show(panels, selected)
    left = len(pending(traces))
    if left:  # the page is drawn again with each further result
        polled(partial(_draw_pending, left), lambda: len(pending(traces)) == left, POLL)


def _draw_pending(left: int) -> None:
    st.caption(f":material/hourglass_top: comparing the images of {left} more traces in the background …")


with guarded():
    compare_page(current())
