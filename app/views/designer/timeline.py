"""The timeline of a plan: a handle per step, and under it a ladder of what the step may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from app.widgets.plans.figures import GROUPS, step_group
from deediff.plans import Plan, PlanStep
from deediff.plans.plan import step_name
from deediff.plans.text import steps_to_text

STEPS = "steps"  # key of the plan's steps, in the URL as in the session
ASSETS = Path(__file__).parent


@dataclass(frozen=True)
class Rung:
    """One thing that a step may do: a row of the ladder."""

    option: PlanStep  # at timestep 0
    gflops: float  # of one image


def timeline(plan: Plan, rungs: Sequence[Rung], key: str = "timeline") -> None:
    """Draw a plan. A change by the reader selects the new steps before the next run of the script.

    `rungs` are the rows, the cheapest first; each step of the plan is one of them.
    """

    def changed() -> None:
        if text := (st.session_state.get(key) or {}).get("steps"):
            st.session_state[STEPS] = text

    places = {rung.option: row for row, rung in enumerate(rungs)}
    content = {
        "last": plan.num_timesteps - 1,
        "rows": [_row(rung) for rung in rungs],
        "marks": [{"t": step.timestep, "row": places[replace(step, timestep=0)]} for step in plan.steps],
    }
    _component()(key=key, data=content, on_steps_change=changed)


def _row(rung: Rung) -> dict[str, Any]:
    name = step_name(rung.option)
    return {
        "label": name,
        "title": f"{name}: {rung.gflops:.3g} GFLOPs",
        "text": steps_to_text([rung.option])[1:],  # without the timestep, 0
        "color": GROUPS[step_group(rung.option)][0],
    }


@cache
def _component() -> Any:
    css, js = ((ASSETS / f"timeline.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return st.components.v2.component("timeline", html='<div class="timeline"></div>', css=css, js=js)
