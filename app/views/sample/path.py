"""Exit layer and u of one sample over time."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.state import cache
from app.state.selection import Selection
from app.views.sample.figures import path_figure
from app.views.sample.film import FilmJob
from app.views.sample.stored import number_of
from app.widgets.panels import Panel, heading, mark
from app.widgets.plot import chart, selects
from deediff.traces.reader import Trace

HELP = (
    "The line is the exit layer at each step, the colours are the u of the queried UEMs (Eq. 5); cells that were not "
    "queried are white. Under a threshold the sample exits at the first layer whose u is ≤ τ. Click a cell to select "
    "its timestep and layer."
)


def path_panel(job: FilmJob | None, film_comes: bool) -> Panel:
    """Rows that the trace lacks are taken from the film, once there is one."""
    return Panel("sample path", partial(_draw_path, job, film_comes))


def _draw_path(job: FilmJob | None, film_comes: bool, selected: Selection) -> None:
    trace, number = selected.trace, number_of(selected)
    assert trace is not None
    path, source = cache.sample_rows(trace, number), "from the trace's rows"
    if path is None and job is not None and job.film is not None:
        path, source = (job.film.exit_layers, job.film.uncertainty), "recomputed, because the trace lacks its rows"
    if path is None:
        how = "the film below recomputes them" if film_comes else "the exit layers are stored nowhere else"
        st.info(f"This trace lacks its rows: {how}.")
        return
    exits, u = path
    if u is not None and np.isnan(u).all():
        u = None
    title = about_path(exits, trace.num_blocks)
    shown = "exit layer" if u is None else "exit layer (line) over u of every queried layer"
    subtitle = f"{shown} · sample {number}, {len(exits)} steps · {source}"
    heading(title, subtitle, HELP, partial(_table, trace, exits, u), f"sample {number}")
    figure = path_figure(exits, u, trace.timesteps, trace.num_blocks, highest_uncertainty(selected), mark(selected))
    chart(figure, "plot sample path", title, selects(x="timestep", y="layer"), subtitle)


def _table(trace: Trace, exits: NDArray[np.int8], u: NDArray[np.float32] | None) -> pd.DataFrame:
    rows = pd.DataFrame({"step": np.arange(len(exits)), "timestep": trace.timesteps, "exit_layer": exits})
    return rows if u is None else rows.assign(**{f"u_{i}": u[:, i] for i in range(u.shape[1])})


def highest_uncertainty(selected: Selection) -> float:
    """The colour scale's end: that of the heatmaps of mean u."""
    pair = [t for t in (selected.trace, selected.other) if t is not None and t.meta.has_uncertainty]
    means = [np.nanmax(t.summary.mean_uncertainty()) for t in pair]
    return float(np.ceil(max(means, default=0.5) * 20) / 20)


def about_path(exit_layers: NDArray[np.int8], num_blocks: int) -> str:
    """The figure's title, from one sample's exit layers (S,)."""
    full = float((exit_layers == num_blocks).mean())
    if full == 1:
        return f"No early exit: all {num_blocks} blocks at every step"
    if full == 0:
        return f"Early exit at every step, after {exit_layers.mean():.1f} of {num_blocks} blocks on average"
    early = exit_layers[exit_layers < num_blocks]
    return f"Early exit at {1 - full:.0%} of the steps, after {early.mean():.1f} of {num_blocks} blocks on average"
