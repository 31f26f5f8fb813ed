"""What is known about the plan: its cost, its measurement, the search it came from, and what each step contributes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app.jobs.search import MeasureJob, why_no_search
from app.state import session
from app.state.commands import typed
from app.state.selection import Selection
from app.views.designer.design import Design
from app.views.designer.figures import trials
from app.views.designer.timeline import STEPS
from app.widgets import evaluation, job_list
from app.widgets.panels import Panel, Picture, guarded
from app.widgets.plans.found import KINDS, read_plans
from app.widgets.plans.steps import changed_steps, changes_table, read_contributions
from app.widgets.plot import Point
from app.widgets.waiting import polled
from deediff.plans.file import read_validation, write_plan
from deediff.plans.front import read_front
from deediff.plans.trials import read_trials

POLL = 1.0  # seconds between two checks of the queue
TRIALS_HELP = (
    "Every plan that a search has measured on its own noise: the score is the metric, times the guard's excess over "
    "the full network's. Lines join the best per cost. A click loads a plan into the timeline."
)
STEPS_HELP = (
    "The plan sampled again with one step changed, on noise that was not used for choosing it; paired differences with "
    "95 % intervals. Above 0 the change makes the images worse: the step as it is pays."
)


def result_panels(design: Design) -> tuple[Panel, Panel, Panel]:
    """Trials of the search, changed steps, and the buttons."""
    return (
        Panel("search trials", partial(_draw_trials, design), help=TRIALS_HELP),
        Panel("changed steps", partial(_draw_steps, design), help=STEPS_HELP),
        Panel("measure plan", partial(_draw_measure, design)),
    )


def _draw_trials(design: Design, selected: Selection) -> Picture | None:
    found = read_trials(selected.run.path)
    if not found:
        st.info("No search of this run has listed its trials yet. This command searches for 20 minutes:")
        st.code(f"deediff search {selected.run.path}", language="bash", wrap_lines=True)
        return None
    front = read_front(selected.run.path)
    table = pd.DataFrame(
        [(KINDS[kind], *trial) for kind, rows in found.items() for trial in rows],
        columns=["search", "evaluations", "score", "steps"],
    )
    title = f"{len(table):,} plans were tried"
    metric = "score" if front is None else f"score ({front.metric}, guarded)"
    return Picture(
        title, "measured on the search's noise", trials(found, metric, design.full_gflops), lambda: table, _load
    )


def _load(point: Point) -> None:
    if point.get("customdata"):
        st.session_state[STEPS] = point["customdata"][0]


def _draw_steps(design: Design, selected: Selection) -> Picture | None:
    name = _saved_name(design, selected)
    found = None if name is None else read_contributions(selected.run.path / "plans" / f"{name}.json")
    if found is None:
        st.info("What each step contributes has not been measured for this plan.")
        if name is not None:
            st.code(f"deediff search {selected.run.path} --steps-of {name}", language="bash", wrap_lines=True)
        return None
    title = "What each step contributes"
    subtitle = f"{name}: change of {found.metric} · measured, N = {found.images:,}, seed {found.seed}"
    return Picture(title, subtitle, changed_steps(found), partial(changes_table, found))


def _saved_name(design: Design, selected: Selection) -> str | None:
    """The saved plan of the same steps."""
    plans, _ = read_plans(selected.run.path)
    return next((name for name, plan in plans.items() if plan == design.plan), None)


def _draw_measure(design: Design, selected: Selection) -> None:
    """The measurement of a saved plan, or the buttons that save and measure it; the file and the command."""
    run, saved = selected.run.path, _saved_name(design, selected)
    name = saved or f"{design.gflops / design.full_gflops:.2f}-mine"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.text_input("Name", name, key=f"plan name {name}", width=220, disabled=saved is not None)
        save = st.button("Save plan", disabled=saved is not None, key="save plan")
        missing = why_no_search()
        measure = st.button("Measure", type="primary", disabled=missing is not None, key="measure plan", help=missing)
        content = json.dumps(replace(design.plan, name=name).to_json(), indent=2)
        st.download_button("JSON", content, f"{name}.json", "application/json", on_click="ignore", type="tertiary")
    with guarded():
        job = MeasureJob(session.this_tab(), run, name, design.plan, design.rival) if save or measure else None
        if save:
            if name in read_plans(run)[0]:
                st.error(f"a plan {name} exists already: choose another name")
            else:
                write_plan(run / "plans" / f"{name}.json", replace(design.plan, name=name))
                st.rerun()
        elif job is not None:
            job_list.submit_job(job)
    if saved is not None and (record := read_validation(run / "plans" / f"{saved}.json")) is not None:
        _draw_record(record)
    known = saved or f"{name}.json"
    out = typed(run / "traces" / f"plan-{name}")
    st.code(f"deediff sample {typed(run)} --plan {known} --num-samples 64 --out {out}", "bash", wrap_lines=True)
    polled(lambda: job_list.draw_jobs(evaluation.evaluate_traces), job_list.is_busy, POLL)


def _draw_record(record: dict[str, Any]) -> None:
    """Metrics, and paired differences from rivals."""
    values = ", ".join(
        f"{name} {found['value']:.3g} [{found['low']:.3g}, {found['high']:.3g}]"
        for name, found in record.get("metrics", {}).items()
    )
    if values:
        st.caption(
            f"Measured: {values} · N = {record['images']:,}, seed {record['seed']}, against {record['reference']}."
        )
    rows = [
        {"compared with": row["plan"], "saving": f"{row['saving']:.0%}"}
        | {m: f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" for m, d in row["differences"].items()}
        for row in record.get("compared_with", [])
    ]
    if rows:
        st.dataframe(pd.DataFrame(rows), hide_index=True)
