"""The panel of policies with memory: the signal that they compare, and the age of the memory."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from app.state.selection import Selection
from app.widgets import figures
from app.widgets.figures import PROBABILITY, Spec
from app.widgets.panels import Panel, Picture, mark, needs_trace
from app.widgets.plot import selects
from deediff.traces.reader import Trace
from deediff.traces.schema import THRESHOLDS


def draw_signal(selection: Selection) -> Picture:
    """P(signal | timestep), and the mean steps since the last full evaluation."""
    trace = selection.trace
    assert trace is not None
    summary, policy = trace.summary, trace.meta.policy
    exits = float(1 - summary.exits[:, -1].sum() / summary.exits.sum())
    title = f"{exits:.0%} of the decisions reuse an earlier evaluation, by a signal of at most {policy.argument}"
    age = float(summary.age_sum.sum() / summary.exits.sum())
    subtitle = f"P(signal | timestep) of {policy} · {age:.2f} steps since the last full evaluation on average"
    return Picture(
        title, subtitle, signal_heatmap(trace, selection), partial(signal_table, trace), selects(x="timestep")
    )


def signal_heatmap(trace: Trace, selection: Selection) -> Spec:
    """Counts of the summary as shares of all samples, with the age of the memory on an axis of its own."""
    signals, steps = trace.summary.signals, len(trace.timesteps)
    highest = int(np.flatnonzero(signals.sum(axis=0)).max(initial=0)) + 1
    shares = signals[:, :highest] / int(trace.summary.samples)
    times = figures.packed(np.asarray(trace.timesteps))
    stops = np.append(THRESHOLDS, THRESHOLDS[-1] + THRESHOLDS[1])[:highest]
    bar = {"title": {"text": "P(signal)", "side": "right"}, "thickness": 12, "tickformat": ".1f", "x": 1.1}
    data: list[figures.Trace] = [
        {
            "type": "heatmap",
            "x": times,
            "y": figures.packed(stops),
            "z": figures.packed(shares.T),
            "zmin": 0,
            "zmax": 1,
            "colorscale": PROBABILITY,
            "colorbar": bar,
            "hovertemplate": "timestep %{x}<br>signal ≤ %{y:.3f}: %{z:.2%} of the samples<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "name": "mean steps since the last full evaluation",
            "x": times,
            "y": figures.packed(trace.summary.age_sum / int(trace.summary.samples)),
            "yaxis": "y2",
            "line": {"color": figures.OTHERS[2], "width": 2},
        },
    ]
    right = figures.axis("steps since full", overlaying="y", side="right", rangemode="tozero", showgrid=False)
    shapes = figures.crosshair(mark(selection), trace.timesteps) if steps > 1 else []
    y = figures.axis("signal", rangemode="tozero")
    return figures.spec(data, figures.time_axis(trace.timesteps), y, yaxis2=right, showlegend=True, shapes=shapes)


def signal_table(trace: Trace) -> pd.DataFrame:
    """One row per step."""
    summary = trace.summary
    known = summary.signals.sum(axis=1)
    return pd.DataFrame(
        {
            "step": np.arange(len(trace.timesteps)),
            "timestep": trace.timesteps,
            "samples_asked": known,
            "mean_signal": np.divide(summary.signal_sum, known, out=np.full(len(known), np.nan), where=known > 0),
            "mean_steps_since_full": summary.age_sum / int(summary.samples),
        }
    )


SIGNAL = Panel(
    "signal",
    draw_signal,
    [needs_trace],
    "Each column is one timestep: the brighter a cell, the more samples have this signal there, which the policy "
    "compares with δ. Columns are empty where the full network runs whatever it is. The line is the mean number of "
    "steps since a sample's last full evaluation.",
)
