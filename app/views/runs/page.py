"""Runs: every run and trace, what distinguishes them, how they were trained; rename, delete, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app.state import cache
from app.state.selection import Selection, become, current, select
from app.state.traces import key_of, open_traces, read_qualities
from app.views.runs import actions, inventory
from app.views.runs.actions import RUNS, TRACES
from app.views.runs.figures import training_curves
from app.widgets import evaluation, job_list, plot
from app.widgets.empty import no_trace
from app.widgets.panels import guarded, heading
from app.widgets.ticked_table import follow, pickable
from deediff.runs import Run, is_training, list_runs
from deediff.traces.reader import Trace

LIVE = 2.0  # seconds between two looks at a training
RUN_HELP = (
    "Tick runs to see their training, settings and traces below; a click on a column's head sorts. A run is one "
    "training: weights, losses and the traces that were sampled from it."
)
CURVES_HELP = (
    "Each picture is one term of the loss (Eq. 4, 7, 8 and 10; their sum is Eq. 9) against the training step, on a "
    "logarithmic scale. The dotted line is where UEMs and output heads are put on the backbone."
)
SETTINGS_HELP = "One row per setting in which the ticked ones differ; with one ticked, every setting it has."
TRACE_HELP = (
    "Each trace is one sampling job. GFLOPs are per image and step; quality stands here once a trace was evaluated; "
    "values of different N, extractors or references cannot be compared."
)


def draw_runs(runs: Sequence[Run], curves: dict[str, pd.DataFrame], selected: Selection) -> list[Run]:
    """The table of runs and its buttons; returns the ticked ones."""
    names = [run.name for run in runs]
    kept = follow(RUNS, names, [selected.run.name])
    chosen = [run for run in runs if run.name in kept]
    traces = sum(len(run.traces) for run in runs)
    table = inventory.run_table(runs, curves)
    heading(f"{len(runs)} runs, {traces} traces", f"in {cache.runs_root()}", RUN_HELP, lambda: table, "runs")
    pickable("run table", table, names, RUNS)
    with st.container(horizontal=True):
        one = len(chosen) == 1
        if st.button("Rename", key="rename run", icon=":material/edit:", disabled=not one):
            actions.ask_name(chosen[0].path)
        if st.button("Delete", key="delete run", icon=":material/delete:", disabled=not chosen):
            actions.ask_delete([run.path for run in chosen])
        st.button(
            "Select", key="select run", icon=":material/center_focus_strong:", disabled=not one,
            on_click=lambda: select(run=chosen[0].name), help="Show this run on every page.",
        )  # fmt: skip
    return chosen


def draw_training(chosen: Sequence[Run]) -> None:
    """Curves of the ticked runs, and how far those are that still train; reads the files anew."""
    problems: list[str] = []
    curves = inventory.read_curves(chosen, problems)
    for problem in problems:
        st.warning(problem)
    training = [run for run in chosen if is_training(run)]
    for run in training:
        draw_progress(run, curves.get(run.name))
    if not curves:
        st.caption("No training curves: imported runs have none.")
        return
    shown = {name: inventory.thinned(curve) for name, curve in curves.items()}
    live = " · updates while they train" if training else ""
    table = pd.concat([curve.assign(run=name) for name, curve in curves.items()])
    heading("Training, term by term", f"{', '.join(curves)}{live}", CURVES_HELP, lambda: table, "training curves")
    plot.chart(training_curves(shown, inventory.LOSSES), "plot training curves", "Training curves")


def draw_progress(run: Run, curve: pd.DataFrame | None) -> None:
    """Where a training is, by its last logged step."""
    planned = inventory.steps_planned(run)
    if curve is None or not len(curve):
        st.caption(f":material/hourglass_top: {run.name} has begun; its first losses are still to come.")
        return
    last = curve.iloc[-1]
    step, rate = int(last["step"]), float(last.get("images_per_second", float("nan")))
    text = f"**{run.name}** trains: {last['stage']}, step {step:,}" + (f" of {planned:,}" if planned else "")
    text += f" · loss {last['loss_total']:.4g}" + (f" · {rate:,.0f} images/s" if rate == rate else "")
    st.progress(min(1.0, step / planned) if planned else 0.0, text)


def watch_training(chosen: Sequence[Run], was_live: bool) -> None:
    """In a fragment of its own, so that only it is drawn again while a run trains."""
    with guarded():
        if was_live and not any(is_training(run) for run in chosen):
            st.rerun()  # the whole page: the table says `done`, and polling ends
        draw_training([again(run) for run in chosen])


def again(run: Run) -> Run:
    """The run as its folder says now."""
    runs, _ = list_runs(cache.runs_root())
    return next((other for other in runs if other.path == run.path), run)


def draw_settings(what: str, settings: dict[str, dict[str, Any]], key: str) -> None:
    """The settings in which the ticked ones differ."""
    if not settings:
        return
    table = inventory.settings_table(settings, all_of_them=len(settings) == 1)
    if len(settings) == 1:
        title = f"{len(table)} settings of {next(iter(settings))}"
    else:
        title = (
            f"{len(settings)} {what} differ in {len(table)} settings"
            if len(table)
            else f"Equal {what}: no setting differs"
        )
    heading(title, "tick several to see only what differs" if len(settings) == 1 else "all other settings are equal",
            SETTINGS_HELP, lambda: table, key)  # fmt: skip
    if len(table):
        st.dataframe(table, hide_index=True, height=min(300, 37 + 35 * len(table)), key=f"table {key}")


def draw_traces(runs: Sequence[Run]) -> list[Trace]:
    """The table of their traces and its buttons; returns the ticked ones."""
    problems: list[str] = []
    traces = open_traces(runs, problems)
    quality = read_qualities(traces, problems)
    for problem in problems:
        st.warning(problem)
    if not traces:
        if len(runs) == 1:
            no_trace(runs[0])
        return []
    names = [key_of(trace) for trace in traces]
    kept = follow(TRACES, names)
    chosen = [trace for trace in traces if key_of(trace) in kept]
    table = inventory.trace_table(traces, quality)
    evaluated = sum(bool(found) for found in quality.values())
    heading(f"{len(traces)} traces, {evaluated} of them evaluated", ", ".join(run.name for run in runs), TRACE_HELP,
            lambda: table, "traces")  # fmt: skip
    pickable("trace table", table, names, TRACES)
    draw_trace_buttons(chosen)
    return chosen


def draw_trace_buttons(chosen: Sequence[Trace]) -> None:
    """For the ticked traces."""
    folders = [Path(str(trace.path)) for trace in chosen]
    one = len(chosen) == 1
    with st.container(horizontal=True):
        if st.button("Rename", key="rename trace", icon=":material/edit:", disabled=not one):
            actions.ask_name(folders[0])
        if st.button("Delete", key="delete trace", icon=":material/delete:", disabled=not chosen):
            actions.ask_delete(folders)
        if st.button("Evaluate", key="evaluate traces", icon=":material/straighten:", disabled=not chosen,
                     help="Measures their images against real ones, in the background."):  # fmt: skip
            evaluation.ask(folders)
        for letter in "AB":
            st.button(
                f"Show as {letter}", key=f"show as {letter}", disabled=not one,
                on_click=lambda letter=letter: become(chosen[0], letter),
            )  # fmt: skip


def watch_queue(was_busy: bool) -> None:
    """Jobs, while there are some."""
    with guarded():
        if was_busy and not job_list.watching():
            st.rerun()  # the whole page: the table has new values, and polling ends
        job_list.draw(evaluation.submit)


def draw() -> None:
    """The page."""
    selected = current()
    actions.say_what_was_done()
    runs, _ = list_runs(cache.runs_root())  # what is wrong with others, the frame says
    chosen = draw_runs(runs, inventory.read_curves(runs, []), selected)
    busy = job_list.watching()
    st.fragment(watch_queue, run_every=1.0 if busy else None)(busy)
    if not chosen:
        st.info("Tick runs above: their training, settings and traces appear here.")
        return
    live = any(is_training(run) for run in chosen)
    st.fragment(watch_training, run_every=LIVE if live else None)(chosen, live)
    ticked = draw_traces(chosen)
    with st.container(key="panels"):
        left, right = st.columns(2)
        with left:
            draw_settings("runs", {run.name: inventory.run_settings(run) for run in chosen}, "run settings")
        with right:
            draw_settings("traces", {key_of(t): inventory.trace_settings(t) for t in ticked}, "trace settings")


with guarded():
    draw()
