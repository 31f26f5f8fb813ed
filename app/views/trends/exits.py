"""Panels drawn from a trace's summary, at the same cost for any number of samples."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.state import cache
from app.state.selection import Selection
from app.state.traces import closest_measured, uncertainty_deviation
from app.views.trends import findings, numbers
from app.views.trends.figures.depth import at_timestep, still_inside
from app.widgets import figures
from app.widgets.empty import no_measurement
from app.widgets.figures import Line
from app.widgets.findings import about_exits
from app.widgets.panels import Panel, Picture, mark, needs_trace
from app.widgets.pictures.exit_heatmap import exit_heatmap
from app.widgets.pictures.over_time import gap, spread_over_samples
from app.widgets.plot import selects
from deediff.analysis.trends import exit_counts_table, exit_quantiles, mean_exit_layer
from deediff.traces.reader import Trace

Ints = NDArray[np.int64]
OPEN_LOOP = "estimated (open loop)"


def measurement(selection: Selection) -> Trace | None:
    """The trace whose exits answer the slider: one sampled at its threshold, else A if it was sampled with exits.

    None where only the open-loop estimate does.
    """
    trace, closest = selection.trace, closest_measured(selection)
    if closest is not None and abs((closest.threshold or 0.0) - (selection.threshold or 0.0)) < 1e-6:
        return closest
    return trace if trace is not None and (selection.answer is None or not trace.meta.is_full) else None


def exits_on_screen(selection: Selection) -> tuple[Ints, str]:
    """Exit counts (S, N+1), and their description: measured, else those of the what-if."""
    trace = measurement(selection) or selection.trace
    assert trace is not None
    where = f"{int(trace.summary.samples):,} samples × {len(trace.timesteps)} steps of {trace.path.name}"
    if measurement(selection) is None and selection.answer is not None:
        return selection.answer.exits, f"{OPEN_LOOP} at τ = {selection.threshold:.3f} · {where}"
    return trace.summary.exits, f"measured, {label(trace)} · {where}"


def names_on_screen(selection: Selection) -> tuple[str, str]:
    """Names of what answers the slider, and of B, in legends."""
    found = measurement(selection)
    a = f"A estimated, τ = {selection.threshold:g}" if found is None else f"measured, {label(found)}"
    return a, f"B measured, {label(selection.other)}" if selection.other is not None else "B"


def titled(selection: Selection, finding: str) -> str:
    """A finding about these exits as a title, which says when it is an estimate."""
    return finding if measurement(selection) is not None else f"Estimated: {finding[0].lower()}{finding[1:]}"


def label(trace: Trace) -> str:
    """Name of a measured trace in a legend."""
    if trace.threshold is not None:
        return f"τ = {trace.threshold:g}"
    return trace.path.name if trace.meta.imported else trace.meta.title


def draw_heatmap(selection: Selection) -> Picture:
    """P(exit at layer | timestep), with the mean exit layers of A and B."""
    trace, other = selection.trace, selection.other
    assert trace is not None
    exits, source = exits_on_screen(selection)
    lines = []
    if other is not None and other.num_blocks == trace.num_blocks:
        lines = [Line(f"mean of {names_on_screen(selection)[1]}", _mean_at_times_of(trace, other), figures.B)]
    if selection.answer is not None and measurement(selection) is not None:
        name = f"{OPEN_LOOP}, τ = {selection.threshold:g}"
        lines.append(Line(name, mean_exit_layer(selection.answer.exits), figures.A, estimated=True))
    if (path := _sample_exits(selection)) is not None:
        lines.append(Line(f"sample {selection.sample}", path, figures.OTHERS[1]))
    return Picture(
        titled(selection, about_exits(mean_exit_layer(exits), trace.num_blocks)),
        f"P(exit at layer | timestep) · {source}",
        exit_heatmap(exits, trace.timesteps, lines, mark(selection)),
        partial(exit_counts_table, exits, trace.timesteps),
        selects(x="timestep", y="layer"),
    )


def _sample_exits(selection: Selection) -> NDArray[np.integer] | None:
    """Exit layers (S,) of the selected sample, at the slider's threshold; None without one, or without its rows."""
    if selection.sample is None or selection.trace is None:
        return None
    path = cache.sample_rows(selection.trace, selection.sample)
    if path is None or selection.threshold is None:
        return None if path is None else path[0]
    exits = np.asarray(path[1]) <= np.float32(selection.threshold)
    return np.where(exits.any(axis=1), exits.argmax(axis=1), selection.trace.num_blocks)


def _mean_at_times_of(trace: Trace, other: Trace) -> NDArray[np.float64]:
    """Mean exit layer of `other` at the timesteps of `trace`: (S,)."""
    mean = mean_exit_layer(other.summary.exits)
    if other.timesteps == trace.timesteps:
        return mean
    return np.interp(trace.timesteps[::-1], other.timesteps[::-1], mean[::-1])[::-1]


def draw_moment(selection: Selection) -> Picture:
    """Exits and u at the selected timestep."""
    trace, other = selection.trace, selection.other
    assert trace is not None
    exits = exits_on_screen(selection)[0][selection.step]
    names = names_on_screen(selection)
    shares = [Line(names[0], exits / exits.sum(), figures.A)]
    if other is not None:
        there = other.summary.exits[selection.step_of(other)]
        shares.append(Line(names[1], there / there.sum(), figures.B))
    curves = []
    for letter, t, color in (("A", trace, figures.A), ("B", other, figures.B)):
        if t is not None and t.meta.has_uncertainty:
            step = selection.step_of(t)
            values, spread = t.summary.mean_uncertainty()[step], uncertainty_deviation(t)[step]
            if not np.isnan(values).all():
                curves.append(Line(f"mean u of {letter}", values, color, spread=spread))
    subtitle = f"t = {selection.timestep} (step {selection.step}) · {int(exits.sum()):,} samples"
    if curves:
        subtitle += " · u: mean ± one standard deviation of arriving samples"
    table = partial(_moment_table, exits, curves[0] if curves else None)
    figure = at_timestep(shares, curves, selection.threshold, mark(selection))
    return Picture(
        titled(selection, findings.about_moment(exits, selection.timestep)), subtitle, figure, table, selects(y="layer")
    )


def _moment_table(exits: Ints, curve: Line | None) -> pd.DataFrame:
    frame = pd.DataFrame({"layer": np.arange(len(exits)), "count": exits, "share": exits / exits.sum()})
    if curve is not None and curve.spread is not None:
        frame["mean_u"] = [*curve.values, np.nan]
        frame["deviation_of_u"] = [*curve.spread, np.nan]
    return frame


def draw_inside(selection: Selection) -> Picture:
    """Share of samples that arrive at each layer."""
    trace, other = selection.trace, selection.other
    assert trace is not None
    exits, source = exits_on_screen(selection)
    names = names_on_screen(selection)
    now = numbers.arriving(exits[selection.step])
    overall = numbers.arriving(exits.sum(axis=0))
    lines = [
        Line(f"{names[0]}, all timesteps", overall, figures.A),
        Line(f"{names[0]}, t = {selection.timestep}", now, figures.A, estimated=True),
    ]
    if other is not None:
        lines.append(Line(f"{names[1]}, all", numbers.arriving(other.summary.exits.sum(axis=0)), figures.B))
    columns = {
        "layer": np.arange(len(now)),
        "arriving_all_timesteps": overall,
        f"arriving_t_{selection.timestep}": now,
    }
    figure = still_inside(lines, mark(selection))
    subtitle = f"share of samples that arrive at each layer · {source}"
    title = titled(selection, findings.about_depth_reached(overall))
    return Picture(title, subtitle, figure, partial(pd.DataFrame, columns), selects(x="layer"))


def draw_spread(selection: Selection) -> Picture:
    """Difference between samples at the same timestep."""
    trace = selection.trace
    assert trace is not None
    exits, source = exits_on_screen(selection)
    q05, q25, q50, q75, q95 = exit_quantiles(exits, (0.05, 0.25, 0.5, 0.75, 0.95))
    deviation = numbers.deviation_within(exits)
    bands = [("90 % of samples", q05, q95), ("half of the samples", q25, q75)]
    figure = spread_over_samples(bands, q50, trace.timesteps, trace.num_blocks, figures.A, mark(selection))
    columns = {
        "step": np.arange(len(q05)),
        "timestep": trace.timesteps,
        "p05": q05,
        "p25": q25,
        "median": q50,
        "p75": q75,
        "p95": q95,
        "standard_deviation": deviation,
    }
    title = titled(selection, findings.about_spread(deviation, trace.timesteps))
    table = partial(pd.DataFrame, columns)
    return Picture(title, f"exit layers over samples · {source}", figure, table, selects(x="timestep"))


def draw_gap(selection: Selection) -> Picture | None:
    """The open-loop estimate at a measured threshold, beside the measurement; where there is none, how to get one."""
    trace, truth = selection.trace, closest_measured(selection)
    assert trace is not None
    if truth is None:
        no_measurement(selection.run, trace, selection.threshold or 0.0)
        return None
    assert truth.threshold is not None
    tau, answer = truth.threshold, trace.what_if(truth.threshold)
    estimated = Line(f"estimated from A, τ = {answer.threshold:g}", mean_exit_layer(answer.exits), figures.A, True)
    color = figures.B if selection.other is not None and selection.other.path == truth.path else figures.OTHERS[0]
    measured = Line(f"measured, τ = {tau:g}", mean_exit_layer(truth.summary.exits), color)
    ratio = truth.cost.layer_ratio(truth.summary.exits)
    columns = {
        "step": np.arange(len(trace.timesteps)),
        "timestep": trace.timesteps,
        "estimated": estimated.values,
        "measured": measured.values,
        "difference": estimated.values - measured.values,
    }
    subtitle = f"τ = {tau:g}, the measured threshold closest to the slider · layer ratio {answer.layer_ratio:.3f} "
    subtitle += f"{OPEN_LOOP}, {ratio:.3f} measured (closed loop), N = {int(truth.summary.samples):,}"
    figure = gap(estimated, measured, trace.timesteps, trace.num_blocks, mark(selection))
    title = findings.about_gap(answer.layer_ratio, ratio)
    return Picture(title, subtitle, figure, partial(pd.DataFrame, columns), selects(x="timestep"))


def needs_measured(selection: Selection) -> str | None:
    """Trace A answers the measured threshold closest to the slider's, if one was measured."""
    if selection.trace is None or selection.threshold is None:
        return needs_trace(selection) or f"No estimate to judge: {selection.trace and selection.trace.why_no_what_if}."
    if selection.trace.meta.signal_exit is not None:
        return f"The estimate is of another δ of {selection.trace.meta.policy}: sample it with that δ to see its error."
    truth, limit = closest_measured(selection), selection.trace.what_if_limit
    if truth is not None and limit is not None and (truth.threshold or 0) < limit[0]:
        return f"Trace A answers thresholds from {limit[0]:g} only, and the closest measured one is lower."
    return None


HEATMAP = Panel(
    "exit heatmap",
    draw_heatmap,
    [needs_trace],
    "Each column is one timestep: the brighter a cell, the more samples exit after that many blocks; the white line "
    "is the mean exit layer, the dotted white one the static schedule that agrees with most decisions. Where the exits "
    "are measured, the dashed line is the mean that the open-loop estimate gives. A sample exits at the "
    "first layer i whose uncertainty (Eq. 5) satisfies u_i ≤ τ. Click a cell to select its timestep and layer in "
    "every panel; a selected sample is drawn as a line.",
)
MOMENT = Panel(
    "exits at one timestep",
    draw_moment,
    [needs_trace],
    "One column of the heatmap: bars are the share of samples that exit at each layer, the curve is the uncertainty u "
    "(Eq. 5) of those that arrive there, on the same depth axis. Where the curve is left of the dotted τ, a sample "
    "with mean u would exit.",
)
INSIDE = Panel(
    "still inside",
    draw_inside,
    [needs_trace],
    "The share of samples for which at least i blocks are run: Σ P(exit layer ≥ i). The area under a line divided by N "
    "is the layer ratio; a step down is a layer with many exits.",
)
SPREAD = Panel(
    "spread between samples",
    draw_spread,
    [needs_trace],
    "At each timestep, half of the samples exit within the darker band and 90 % within the wider one. Where the bands "
    "are thin, the timestep determines the exit layer, and one fixed layer would do as well.",
)
GAP = Panel(
    "open and closed loop",
    draw_gap,
    [needs_measured],
    "Dashed: trace A's recorded u against τ, as if earlier exits had no effect on later steps (open loop). Solid: "
    "sampled with exits at this τ (closed loop); the bars below are the difference, estimated − measured, in layers.",
)
