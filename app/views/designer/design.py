"""The plan on the page: where it comes from, what it may do, and what it costs."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

import streamlit as st

from app.state import cache, link
from app.state.choice import resolve
from app.state.selection import Selection
from app.views.designer.timeline import STEPS, Rung
from app.widgets import inputs
from app.widgets.plans.found import read_plans
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from deediff.plans.front import read_front
from deediff.plans.text import steps_from_text, steps_to_text
from deediff.search.judge import plan_gflops
from deediff.search.space import make_space
from deediff.search.start import uniform_plan

START, RIVAL, SEED = "plan", "rival", "designer seed"  # keys of widgets, in the URL as in the session
STARTED = "designer started"  # session state: the plan that the steps began with
UNIFORM = (4, 6, 8, 10, 12)  # steps of the uniform plans that can be chosen
FALLBACK = "12-uniform"


@dataclass(frozen=True)
class Design:
    """The plan, its rival, and their costs in GFLOPs of one image."""

    model: EarlyExitModel
    schedule: Schedule
    plan: Plan
    rival: Plan
    full: Plan  # the full network at the plan's timesteps
    rungs: list[Rung]
    seed: int
    gflops: float
    rival_gflops: float
    full_gflops: float  # of one evaluation of the full network

    @property
    def saving(self) -> float:
        """1 − cost of the plan / cost of the rival."""
        return 1 - self.gflops / self.rival_gflops


def choose(selected: Selection) -> Design:
    """Widgets for the start, the rival and the seed; the steps are those of the link, the timeline, or the start.

    Raises UserError when the model cannot sample by the plan.
    """
    assert selected.checkpoint is not None
    model, schedule = cache.get_model(selected.checkpoint)
    plans = _named_plans(selected.run.path, model, schedule)
    front = read_front(selected.run.path)
    best = front.headline[0]["plan"] if front is not None and front.headline is not None else None
    with st.container(horizontal=True, vertical_alignment="bottom", key="designer_choices"):
        names = list(plans)
        start = inputs.selectbox("Start from", names, START, best if best in plans else names[0], width=220)
        rival = inputs.selectbox("Rival", names, RIVAL, FALLBACK, width=220)
        seed = inputs.number_input("Seed", 0, 2**31 - 1, SEED, 0, width=120)
    stamp = selected.checkpoint.stat().st_mtime_ns
    options = [rung.option for rung in _options(selected.checkpoint, stamp)]
    networks = {step.network for steps in (options, *(plan.steps for plan in plans.values())) for step in steps}
    plan = _resolved(start, plans[start], networks)
    rungs = _rungs(selected.checkpoint, stamp, plan.steps)
    return Design(
        model,
        schedule,
        plan,
        plans[rival],
        replace(plan, steps=tuple(PlanStep(t) for t in plan.timesteps), name="full network"),
        rungs,
        seed,
        plan_gflops(model, schedule, plan),
        plan_gflops(model, schedule, plans[rival]),
        rungs[-1].gflops,
    )


def _resolved(start: str, plan: Plan, networks: Set[str | None]) -> Plan:
    """The plan with the steps of a click, the link or the session; another start begins anew.

    Steps name only these networks: a link must not make the server open a path.
    """
    begun = steps_to_text(plan.steps)
    moved = st.session_state.get(STARTED) not in (None, start)
    st.session_state[STARTED] = start

    def valid(text: str) -> str | None:
        try:
            steps = replace(plan, steps=steps_from_text(text)).steps
        except UserError:
            return None
        return steps_to_text(steps) if {step.network for step in steps} <= networks else None

    text = resolve(STEPS, begun, valid, led=begun if moved else None)
    st.session_state[STEPS] = text
    link.write({STEPS: text})
    return plan if text == begun else replace(plan, steps=steps_from_text(text), name="")


def _named_plans(run: Path, model: EarlyExitModel, schedule: Schedule) -> dict[str, Plan]:
    """The plans of the run that fit the model, and uniform ones."""
    found, _ = read_plans(run)
    fitting = {name: plan for name, plan in found.items() if plan.num_blocks == model.num_blocks}
    uniform = {f"{steps}-uniform": uniform_plan(model.num_blocks, schedule, steps) for steps in UNIFORM}
    return fitting | {name: replace(plan, name=name) for name, plan in uniform.items() if name not in fitting}


def _rungs(checkpoint: Path, stamp: int, steps: tuple[PlanStep, ...]) -> list[Rung]:
    """What a step may do, the cheapest first: what the run has, and what the plan does already."""
    known = _options(checkpoint, stamp)
    others = {replace(step, timestep=0) for step in steps} - {rung.option for rung in known}
    model, schedule = cache.get_model(checkpoint)
    return sorted([*known, *(_rung(option, model, schedule) for option in others)], key=lambda rung: rung.gflops)


@st.cache_resource(max_entries=4, show_spinner="Listing exits and readouts …")
def _options(checkpoint: Path, stamp: int) -> list[Rung]:
    model, schedule = cache.get_model(checkpoint)
    run = checkpoint.parent.parent
    return [_rung(option, model, schedule) for option in make_space("all", model, schedule, run).options]


def _rung(option: PlanStep, model: EarlyExitModel, schedule: Schedule) -> Rung:
    """Its cost as the last of three steps, so that every readout has the predictions that it reads."""
    last = schedule.num_timesteps - 1
    before = (PlanStep(last), PlanStep(last - 1), PlanStep(last - 2))
    plan = Plan((*before, replace(option, timestep=0)), model.num_blocks, schedule.num_timesteps)
    return Rung(option, plan_gflops(model, schedule, plan) - plan_gflops(model, schedule, replace(plan, steps=before)))
