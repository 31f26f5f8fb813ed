"""Why? What each step of the plan contributes, what an exit loses, or how much samples differ: what was measured."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.state.selection import Selection
from app.views.overview.figures import small
from app.views.overview.where import best_plan, chosen_cell, measured_exits
from app.widgets import figures
from app.widgets.empty import offer_calibration
from app.widgets.panels import Panel, Picture
from app.widgets.pictures.layer_heatmap import layer_heatmap
from app.widgets.pictures.over_time import spread_over_samples
from app.widgets.plans.steps import Contributions, changed_steps, changes_table, read_contributions
from deediff.analysis.trends import exit_quantiles, timestep_share
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.traces.reader import Trace

Floats = NDArray[np.float64]


def draw_why(selection: Selection) -> Picture | None:
    """The first of these that was measured."""
    for draw in (_steps_of_plan, _deviations, _excess_errors, _spread):
        if (picture := draw(selection)) is not None:
            return picture
    if selection.checkpoint is None:
        st.info("Nothing was measured that explains this run's exits, and without a checkpoint nothing can be.")
        return None
    offer_calibration("What an exit loses has not been measured yet, on held-out images.", selection.checkpoint)
    return None


def _steps_of_plan(selection: Selection) -> Picture | None:
    plan = best_plan(selection)
    file = None if plan is None else selection.run.path / "plans" / f"{plan.name}.json"
    found = None if file is None else read_contributions(file)
    if plan is None or found is None:
        return None
    subtitle = f"change of {found.metric} when one step of plan {plan.name} is changed · measured, N = {found.images:,}"
    figure = small(changed_steps(found), "above")
    about = f"run {selection.run.name}"
    return Picture(about_steps(found), subtitle, figure, partial(changes_table, found), about=about)


def _deviations(selection: Selection) -> Picture | None:
    """Of trace A, or of another from the same noise."""
    traces = [trace for trace in (selection.trace, *selection.siblings) if trace is not None]
    trace = next((trace for trace in traces if trace.meta.has_deviations), None)
    if trace is None:
        return None
    sums, counts = trace.summary.deviation_sum, trace.summary.deviation_count
    values = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    subtitle = f"mean deviation of an exit, {trace.path.name} · measured, N = {int(trace.summary.samples):,}"
    return _losses(values, trace.timesteps, "deviation", subtitle, selection)


def _excess_errors(selection: Selection) -> Picture | None:
    found = None if selection.checkpoint is None else excess_errors(selection.checkpoint)
    if found is None:
        return None
    values, timesteps, about = found
    return _losses(values, timesteps, "excess error", f"excess error of an exit · measured · {about}", selection)


def excess_errors(checkpoint: Path) -> tuple[Floats, list[int], str] | None:
    """From the calibration beside a checkpoint: √(MSE of ε of each exit − that of the full network), (T', N).

    Rows follow the sampling, from the highest timestep; NaN where there is no exit. Also the timesteps, and the
    images behind it. None where there is no calibration, or no exit. Raises UserError when the file is damaged or
    belongs to other weights.
    """
    file = checkpoint.with_suffix(".calibration.json")
    if not file.exists():
        return None
    content, weights = read_json(file), read_json(checkpoint.with_suffix(".json"))
    if content.get("checkpoint_sha256") != weights.get("sha256"):
        raise UserError(f"{file} belongs to other weights: run 'deediff calibrate {checkpoint}' again")
    try:
        mse = np.array(content["tables"]["mse"], dtype=np.float64)[::-1]  # (T', N+1)
        timesteps = [int(t) for t in content["tables"]["timesteps"]][::-1]
        about = f"{content['images']} images of {content['dataset']} ({content['split']})"
        values = np.sqrt(np.maximum(mse[:, :-1] - mse[:, -1:], 0))
        if len(values) != len(timesteps):
            raise ValueError(f"{len(values)} rows, {len(timesteps)} timesteps")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{file} is not a readable calibration ({error}): run 'deediff calibrate' again") from None
    return None if np.isnan(values).all() else (values, timesteps, about)


def _losses(values: Floats, timesteps: list[int], name: str, subtitle: str, selection: Selection) -> Picture:
    figure = small(layer_heatmap(values, timesteps, name, False, chosen_cell(selection)))
    figure["layout"]["xaxis"]["title"] |= {"text": "timestep t"}
    figure["layout"]["yaxis"]["title"] |= {"text": "exit layer"}
    table, about = partial(_loss_table, values, timesteps, name), f"run {selection.run.name}"
    return Picture(about_losses(values, timesteps), subtitle, figure, table, about=about)


def _loss_table(values: Floats, timesteps: list[int], name: str) -> pd.DataFrame:
    steps, layers = values.shape
    columns = {"timestep": np.repeat(timesteps, layers), "exit_layer": np.tile(np.arange(layers), steps)}
    return pd.DataFrame(columns | {name.replace(" ", "_"): values.ravel()})


def _spread(selection: Selection) -> Picture | None:
    trace = measured_exits(selection)
    share = float("nan") if trace is None else timestep_share(trace.summary.exits)
    if trace is None or np.isnan(share):
        return None
    exits = trace.summary.exits
    q05, q25, q50, q75, q95 = exit_quantiles(exits, (0.05, 0.25, 0.5, 0.75, 0.95))
    bands = [("90 % of samples", q05, q95), ("half of the samples", q25, q75)]
    figure = small(spread_over_samples(bands, q50, trace.timesteps, trace.num_blocks, figures.A))
    figure["layout"]["xaxis"]["title"] |= {"text": "timestep t"}
    subtitle = f"exit layers of half and of 90 % of the samples · {trace.path.name}, measured"
    about = f"run {selection.run.name}"
    return Picture(about_spread_shares(share), subtitle, figure, partial(_spread_table, trace), about=about)


def _spread_table(trace: Trace) -> pd.DataFrame:
    shares = {"p05": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
    found = exit_quantiles(trace.summary.exits, list(shares.values()))
    return pd.DataFrame({"timestep": trace.timesteps, **dict(zip(shares, found, strict=True))})


def about_steps(found: Contributions) -> str:
    """Which step matters most: by how much the metric changes without it."""
    changes = [(row, change["value"]) for row in found.rows if (change := found.change(row, "left_out"))]
    if not changes:
        return "No step of the plan can be left out"
    row, value = max(changes, key=lambda pair: pair[1])
    step = f"t = {row['timestep']} ({row['step']})"
    return f"The step at {step} matters most: without it {found.metric} changes by {value:+.2f}"


def about_losses(values: Floats, timesteps: list[int]) -> str:
    """When an exit loses least and most, from one number per step and layer, first step first: (S, N)."""
    over_layers, over_time = np.nanmean(values, axis=1), np.nanmean(values, axis=0)
    third = max(1, len(timesteps) // 3)
    early, late = float(over_layers[:third].mean()), float(over_layers[-third:].mean())
    when = "while the image is mostly noise" if early < late else "when the image is nearly clean"
    least, most = sorted((early, late))
    layer = int(np.nanargmax(over_time))
    return f"An exit loses least {when} ({least:.2f}; {most:.2f} at the other end), and most at layer {layer}"


def about_spread_shares(share: float) -> str:
    """From the share of the exit layer's variance that the timestep explains."""
    return (
        f"The timestep explains {share:.0%} of the exit layer's variance, differences between samples {1 - share:.0%}"
    )


WHY = Panel(
    "why",
    draw_why,
    help="What was measured, the first of: what becomes of the plan's metric when one step is made full or left out; "
    "how far an exit's prediction of ε is from the full network's, at each layer and timestep (0: nothing is lost); "
    "how much the exit layer differs between samples at the same timestep.",
    question="Why?",
    more=("uncertainty", "What the exits know about their error"),
)
