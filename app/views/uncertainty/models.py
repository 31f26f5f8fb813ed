"""Panels drawn from traces: heatmaps of u of several models, and curves over depth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from app.state import cache, link
from app.state.selection import Selection
from app.state.traces import uncertainty_deviation
from app.views.uncertainty import findings
from app.views.uncertainty.figures.by_layer import rises, uncertainty_curves, uncertainty_heatmap
from app.widgets import figures, inputs
from app.widgets.figures import Line
from app.widgets.panels import Panel, Picture, mark, needs_uncertainty
from app.widgets.plot import selects
from deediff.errors import UserError
from deediff.runs import Run, list_runs
from deediff.traces.reader import Trace

MORE = "more"  # key of the further models, in the URL as in the session


@dataclass(frozen=True)
class Model:
    """A trace on screen that holds u."""

    name: str  # A, B, or run/trace
    trace: Trace
    color: str


def choose_more(selection: Selection) -> list[Model]:
    """A, B and further traces of any run, in the URL: all that are on screen."""
    options = {key: (run, name) for run in list_runs(cache.runs_root())[0] for key, name in _with_u(run)}
    own = {f"{selection.run.name}/{t.path.name}" for t in (selection.trace, selection.other) if t is not None}
    rest = [key for key in options if key not in own]
    chosen = []
    if rest:
        known = list(options)
        chosen = inputs.names(
            "Further models",
            rest,
            MORE,
            what="model",
            possible=known,
            placeholder="traces of any run",
            max_selections=4,
        )
    link.write({MORE: link.joined(chosen) if chosen else None})
    pairs = [("A", selection.trace, figures.A), ("B", selection.other, figures.B)]
    models = [Model(letter, t, color) for letter, t, color in pairs if t is not None and t.meta.has_uncertainty]
    for key, color in zip(chosen, figures.OTHERS, strict=False):
        run, name = options[key]
        try:
            trace = cache.get_trace(run.path / "traces" / name)
            trace.summary  # noqa: B018 — a damaged one becomes one sentence, and the others stay
            models.append(Model(key, trace, color))
        except UserError as error:
            st.error(str(error))
    return models


def _with_u(run: Run) -> list[tuple[str, str]]:
    return [(f"{run.name}/{name}", name) for name, meta in cache.metas(run)[0].items() if meta.has_uncertainty]


def highest(models: list[Model]) -> float:
    """The colour scale's end: the same for all on screen, rounded up."""
    means = [model.trace.summary.mean_uncertainty() for model in models]
    known = [float(np.nanmax(mean)) for mean in means if not np.isnan(mean).all()]
    return float(np.ceil(max(known, default=1.0) * 20) / 20)


def heatmap_panel(model: Model, models: list[Model]) -> Panel:
    """Mean u of one model, on the scale of all of them."""
    return Panel(
        f"u of {model.name}",
        lambda selection: _heatmap(selection, model, highest(models)),
        [needs_uncertainty] if model.name == "A" else [],
        "The brighter a cell, the larger the error that the UEM predicts for an exit there; all models share one "
        "colour scale. White lines separate layers where the mean u is higher above than below: going deeper there "
        "adds uncertainty. u is Eq. 5 (a sigmoid of a linear map of the block's input), trained towards tanh|error| "
        "of that exit (Eq. 6-7).",
    )


def _heatmap(selection: Selection, model: Model, top: float) -> Picture:
    trace, summary = model.trace, model.trace.summary
    mean = summary.mean_uncertainty()
    which = "all samples" if trace.meta.record == "full" else "samples that arrive"
    rising, known = rises(mean), ~np.isnan(np.diff(mean, axis=1))
    subtitle = (
        f"mean u per layer and timestep · {int(summary.samples):,} samples, over {which} · "
        f"{findings.about_rises(rising, known)}"
    )
    figure = uncertainty_heatmap(mean, summary.u_count, trace.timesteps, top, mark(selection))
    title = f"{model.name}: {findings.about_uncertainty(mean, trace.timesteps)}"
    return Picture(title, subtitle, figure, partial(_table, trace), selects(x="timestep", y="layer"))


def _table(trace: Trace) -> pd.DataFrame:
    steps, layers = trace.summary.u_count.shape
    return pd.DataFrame(
        {
            "step": np.repeat(np.arange(steps), layers),
            "timestep": np.repeat(trace.timesteps, layers),
            "layer": np.tile(np.arange(layers), steps),
            "count": trace.summary.u_count.ravel(),
            "mean_u": trace.summary.mean_uncertainty().ravel(),
            "deviation_of_u": uncertainty_deviation(trace).ravel(),
        }
    )


def curves_panel(models: list[Model]) -> Panel:
    """Mean u over depth at the selected timestep."""
    return Panel(
        "u over layers",
        lambda selection: _curves(selection, models),
        [needs_uncertainty],
        "One line per model at the selected timestep; a sample with mean u would exit where the line is below the "
        "dotted τ. u is Eq. 5; it should fall with depth, and a rise (open triangles) is typical of a frozen backbone.",
    )


def _curves(selection: Selection, models: list[Model]) -> Picture:
    lines = []
    for model in models:
        step = selection.step_of(model.trace)
        mean = model.trace.summary.mean_uncertainty()[step]
        name = f"{model.name}: t = {model.trace.timesteps[step]}"
        lines.append(Line(name, mean, model.color, spread=uncertainty_deviation(model.trace)[step]))
    subtitle = f"mean u ± one standard deviation over samples, at t = {selection.timestep} (step {selection.step})"
    figure = uncertainty_curves(lines, selection.threshold, highest(models))
    table = partial(_curve_table, lines)
    return Picture(findings.about_depth(lines[0].values), subtitle, figure, table, selects(x="layer"))


def _curve_table(lines: list[Line]) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "model": line.name,
                "layer": np.arange(len(line.values)),
                "mean_u": line.values,
                "deviation_of_u": line.spread,
            }
        )
        for line in lines
    ]
    return pd.concat(frames, ignore_index=True)
