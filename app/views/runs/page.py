"""Runs: every run and trace, their settings and training curves; rename, delete, evaluate."""

from __future__ import annotations

import streamlit as st

from app.state import cache
from app.state.selection import Selection, current
from app.views.runs import actions, inventory
from app.views.runs.running import running_panel
from app.views.runs.settings import settings_panel
from app.views.runs.tables import choose_traces, runs_panel, ticked_runs, traces_panel
from app.views.runs.training import training_panel
from app.widgets import evaluation, job_list
from app.widgets.panels import Panel, Row, guarded, show
from app.widgets.waiting import polled
from deediff.runs import Run, list_runs, newest_first

POLL = 1.0  # seconds between two checks of the queue


def draw_queue(selected: Selection) -> None:
    """Jobs, while there are some."""
    polled(lambda: job_list.draw_jobs(evaluation.evaluate_traces), job_list.is_busy, POLL)


QUEUE = Panel("queue", draw_queue)


def runs_page(selected: Selection) -> None:
    """The page."""
    actions.show_done()
    by_path = {run.path: run for run in list_runs(cache.runs_root())[0]}  # the frame reports unreadable ones
    runs = [by_path[path] for path in newest_first(by_path)]
    chosen = ticked_runs(runs, selected)
    show([running_panel(chosen), runs_panel(runs, chosen), QUEUE], selected, key="runs and jobs")
    if not chosen:
        st.info("Tick runs above to see their training, settings and traces.")
        return
    show(rows_of(chosen), selected)


def rows_of(chosen: list[Run]) -> list[Row | Panel]:
    """Training, traces and settings of the ticked runs."""
    traces, ticked, problems = choose_traces(chosen)
    runs = {run.name: inventory.run_settings(run) for run in chosen}
    samplings = {name: inventory.trace_settings(trace) for name, trace in ticked.items()}
    return [
        training_panel(chosen),
        traces_panel(chosen, traces, list(ticked.values()), problems),
        [(settings_panel("runs", runs, "run settings"), 1), (settings_panel("traces", samplings, "trace settings"), 1)],
    ]


with guarded():
    runs_page(current())
