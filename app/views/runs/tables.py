"""The tables of runs and traces, with their buttons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import streamlit as st

from app.state import cache
from app.state.selection import Selection, select, select_trace
from app.state.traces import key_of, open_traces, read_qualities
from app.views.runs import actions, inventory
from app.views.runs.actions import RUNS, TRACES
from app.widgets import evaluation
from app.widgets.empty import no_trace
from app.widgets.panels import Panel, heading
from app.widgets.ticked_table import ticked_names, ticked_table
from deediff.runs import Run, newest_first
from deediff.traces.reader import Trace

RUN_HELP = (
    "Tick runs to see their training, settings and traces below; a click on a column's head sorts. A run is one "
    "training: weights, losses and the traces sampled from it."
)
TRACE_HELP = (
    "Each trace is one sampling job. GFLOPs are per image, over all steps; an evaluated trace has columns of quality; "
    "values of different N, extractors or references cannot be compared."
)


def ticked_runs(runs: Sequence[Run], selected: Selection) -> list[Run]:
    """The ticked runs; the selected one by default."""
    ticked = ticked_names(RUNS, [run.name for run in runs], "run", [selected.run.name])
    return [run for run in runs if run.name in ticked]


def runs_panel(runs: Sequence[Run], chosen: Sequence[Run]) -> Panel:
    """Every run; `chosen` are the ticked ones."""
    return Panel("runs", partial(_draw_runs, runs, chosen))


def _draw_runs(runs: Sequence[Run], chosen: Sequence[Run], selected: Selection) -> None:
    traces = sum(len(run.traces) for run in runs)
    table = inventory.run_table(runs, inventory.read_curves(runs, []))
    heading(
        f"{len(runs)} runs, {traces} traces", f"in {cache.runs_root()}", RUN_HELP, lambda: table, "runs", latex=True
    )
    ticked_table("run table", table, [run.name for run in runs], RUNS)
    with st.container(horizontal=True):
        one = len(chosen) == 1
        if st.button("Rename", key="rename run", icon=":material/edit:", disabled=not one):
            actions.rename_dialog(chosen[0].path)
        if st.button("Delete", key="delete run", icon=":material/delete:", disabled=not chosen):
            actions.delete_dialog([run.path for run in chosen])
        st.button(
            "Select",
            key="select run",
            icon=":material/center_focus_strong:",
            disabled=not one,
            on_click=lambda: select(run=chosen[0].name),
            help="Show this run on every page.",
        )


def choose_traces(runs: Sequence[Run]) -> tuple[list[Trace], dict[str, Trace], list[str]]:
    """The traces of these runs; the ticked ones by name; a sentence for each that cannot be read."""
    problems: list[str] = []
    by_path = {Path(str(trace.path)): trace for trace in open_traces(runs, problems)}
    traces = [by_path[path] for path in newest_first(by_path)]
    names = [key_of(trace) for trace in traces]
    ticked = ticked_names(TRACES, names, "trace") if traces else []
    return traces, {key_of(trace): trace for trace in traces if key_of(trace) in ticked}, problems


def traces_panel(runs: Sequence[Run], traces: Sequence[Trace], ticked: Sequence[Trace], problems: list[str]) -> Panel:
    """The traces of the ticked runs."""
    return Panel("traces", partial(_draw_traces, runs, traces, ticked, problems))


def _draw_traces(
    runs: Sequence[Run], traces: Sequence[Trace], ticked: Sequence[Trace], problems: list[str], selected: Selection
) -> None:
    problems = list(problems)
    quality = read_qualities(traces, problems)
    for problem in problems:
        st.warning(problem)
    if not traces:
        if len(runs) == 1:
            no_trace(runs[0])
        return
    table = inventory.trace_table(traces, quality)
    evaluated = sum(bool(found) for found in quality.values())
    title = f"{len(traces)} traces, {evaluated} of them evaluated"
    heading(title, ", ".join(run.name for run in runs), TRACE_HELP, lambda: table, "traces", latex=True)
    ticked_table("trace table", table, [key_of(trace) for trace in traces], TRACES)
    _draw_trace_buttons(ticked)


def _draw_trace_buttons(ticked: Sequence[Trace]) -> None:
    folders = [Path(str(trace.path)) for trace in ticked]
    one = len(ticked) == 1
    with st.container(horizontal=True):
        if st.button("Rename", key="rename trace", icon=":material/edit:", disabled=not one):
            actions.rename_dialog(folders[0])
        if st.button("Delete", key="delete trace", icon=":material/delete:", disabled=not ticked):
            actions.delete_dialog(folders)
        help_text = "Evaluate their images against real ones, in the background."
        if st.button(
            "Evaluate", key="evaluate traces", icon=":material/straighten:", disabled=not ticked, help=help_text
        ):
            evaluation.evaluation_dialog(folders)
        for letter in "AB":
            st.button(
                f"Show as {letter}",
                key=f"show as {letter}",
                disabled=not one,
                on_click=lambda letter=letter: select_trace(ticked[0], letter),
            )
