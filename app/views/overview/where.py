"""Where does it happen? The measured exits over depth and time, and the plan on the same axis."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from app.state.selection import Selection
from app.state.traces import closest_measured
from app.views.overview.figures import where_it_happens
from app.widgets.empty import no_checkpoint, no_exits, no_trace
from app.widgets.figures import Mark
from app.widgets.findings import about_exits
from app.widgets.panels import Panel, Picture, mark
from app.widgets.plot import Clicked, selects
from deediff.analysis.trends import exit_counts_table, mean_exit_layer
from deediff.plans import Plan
from deediff.plans.file import read_plan
from deediff.plans.front import read_front
from deediff.plans.plan import step_name
from deediff.traces.reader import Trace


def measured_exits(selection: Selection) -> Trace | None:
    """Trace A where its samples exit early, else the trace measured at the threshold closest to the slider's."""
    trace = selection.trace
    if trace is not None and trace.summary.exits[:, :-1].any():
        return trace
    return closest_measured(selection)


def chosen_cell(selection: Selection) -> Mark:
    """The selected timestep and layer, where a layer was chosen: there always is a timestep."""
    return Mark() if selection.layer is None else mark(selection)


def best_plan(selection: Selection) -> Plan | None:
    """The plan of the first answer; None where none equals the full network, or its file is gone."""
    front = read_front(selection.run.path)
    if front is None or front.headline is None:
        return None
    file = selection.run.path / "plans" / f"{front.headline[0]['plan']}.json"
    return read_plan(file) if file.exists() else None


def draw_where(selection: Selection) -> Picture | None:
    """Both, or the one that there is."""
    trace, plan = measured_exits(selection), best_plan(selection)
    if trace is None and plan is None:
        if selection.run.traces:
            _no_exits(selection)
        else:
            no_trace(selection.run)
        return None
    about = f"run {selection.run.name}"
    if trace is None:
        assert plan is not None
        title = f"The plan runs the full network at {_full_steps(plan)} of {len(plan.steps)} steps"
        figure = where_it_happens(None, [], plan, chosen_cell(selection))
        return Picture(title, f"plan {plan.name}: {plan}", figure, partial(plan_table, plan), about=about)
    exits, name = trace.summary.exits, f"A, {trace.meta.title}" if trace is selection.trace else trace.path.name
    subtitle = f"P(exit) of {name}, measured, N = {int(trace.summary.samples):,}"
    subtitle += "" if plan is None else f" · below: plan {plan.name}"
    figure = where_it_happens(exits, trace.timesteps, plan, chosen_cell(selection))
    table = partial(exit_counts_table, exits, trace.timesteps)
    title = about_exits(mean_exit_layer(exits), trace.num_blocks)
    return Picture(title, subtitle, figure, table, _select_cell(), about)


def _no_exits(selection: Selection) -> None:
    if not selection.run.has_exits:
        st.info("This model has no exits, and none of its plans equals the full network yet.")
        return
    if not selection.run.checkpoints:
        no_checkpoint(selection.run, "it has no trace with exits, and none can be sampled")
        return
    no_exits(selection.run, selection.trace)


def _full_steps(plan: Plan) -> int:
    return sum(step_name(step) == "full" for step in plan.steps)


def _select_cell() -> Clicked:
    """A click selects timestep and layer; on a mark of the plan, nothing."""
    select = selects(x="timestep", y="layer")
    return lambda point: None if isinstance(point["y"], str) else select(point)


def plan_table(plan: Plan) -> pd.DataFrame:
    """A row per step of a plan, for the download."""
    return pd.DataFrame([{"timestep": step.timestep, "does": step_name(step)} for step in plan.steps])


WHERE = Panel(
    "where",
    draw_where,
    help="Each column is one timestep, from noise (left) to image: the brighter a cell, the more samples exit after "
    "that many blocks; the solid white line is the mean exit layer, the dotted one the most frequent. Below, each mark "
    "is a step of the plan of the first answer: grey runs the full network, green is Gaussian, yellow and pink reuse "
    "or replace the prediction, blue exits early.",
    question="Where does it happen?",
    more=("trends", "Exits at any threshold"),
)
