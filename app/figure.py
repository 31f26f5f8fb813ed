"""The explorer's figures of a trace as plotly figures, for notebooks and papers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go

from app.views.uncertainty.figures.by_layer import uncertainty_heatmap
from app.widgets.figures import A, Line, Spec
from app.widgets.pictures.exit_heatmap import exit_heatmap
from app.widgets.pictures.over_time import mean_exit_lines
from deediff.errors import UserError
from deediff.traces.reader import Trace


def _exits(trace: Trace) -> Spec:
    return exit_heatmap(trace.summary.exits, trace.timesteps)


def _mean_exit(trace: Trace) -> Spec:
    exits = trace.summary.exits
    mean = exits @ np.arange(exits.shape[1]) / exits.sum(axis=1)
    return mean_exit_lines([Line(trace.path.name, mean, A)], trace.timesteps, trace.num_blocks)


def _uncertainty(trace: Trace) -> Spec:
    if not trace.meta.has_uncertainty:
        raise UserError(f"{trace.path} holds no uncertainties, only exit layers")
    mean = trace.summary.mean_uncertainty()
    highest = float(np.ceil(np.nanmax(mean) * 50) / 50)
    return uncertainty_heatmap(mean, trace.summary.u_count, trace.timesteps, highest)


FIGURES: dict[str, Callable[[Trace], Spec]] = {"exits": _exits, "mean-exit": _mean_exit, "uncertainty": _uncertainty}


def trace_figure(trace: Trace, name: str) -> go.Figure:
    """The figure of a trace. Raises UserError for an unknown name, or where the trace lacks what it draws."""
    if name not in FIGURES:
        raise UserError(f"unknown figure {name!r}, expected one of: {', '.join(FIGURES)}")
    return go.Figure(FIGURES[name](trace))
