"""Plans: are timesteps and exits, chosen together, worth it, and what do they do?"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.state.choice import resolve
from app.state.commands import typed
from app.state.selection import Selection, current
from app.views.plans.search import SEARCH
from app.widgets import inputs
from app.widgets.panels import Panel, Picture, guarded, show
from app.widgets.plans.figures import fronts, strips
from app.widgets.plans.found import front_table, read_plans
from app.widgets.plans.steps import changes_text, read_contributions
from app.widgets.plot import Point
from deediff.plans.front import read_front
from deediff.plans.plan import step_name

CHOSEN = "plan"  # key of the chosen plan, in the URL as in the session
FRONT_HELP = (
    "Each mark is a plan, sampled again with noise that was not used for choosing it; bars are 95 % intervals "
    "(delete-a-group jackknife). Grey is the rival: the full network alone, at uniform or at searched timesteps. "
    "Lower and further left is better. The title names the cheapest plan that equals uniform steps: no distance, the "
    "guard fd-pixels among them, is worse beyond its paired 95 % interval, and the metric is at most 0.1 above. "
    "A click chooses a plan."
)
STRIP_HELP = (
    "One row per plan, the cheapest on top, from noise (left) to image. Grey squares run the full network. Circles and "
    "triangles run no block: the closed-form Gaussian, ε = x, or earlier predictions of ε reused."
)


def draw_fronts(selected: Selection) -> Picture | None:
    """The validated fronts of the run."""
    front = read_front(selected.run.path)
    if front is None:
        st.info("No plan of this run has been validated yet. This command searches some (20 minutes):")
        st.code(f"deediff search {selected.run.path}", language="bash", wrap_lines=True)
        return None
    title = f"Validated plans of {selected.run.name}"
    if front.headline is not None:
        plan, rival = front.headline
        saved = 1 - plan["evaluations"] / rival["evaluations"]
        title = f"{plan['plan']}: the images of {rival['evaluations']:.0f} uniform steps for {saved:.0%} less"
    distances = " and ".join((front.metric, *front.guards))
    subtitle = f"measured · equal by {distances}: see (?) · N = {front.images:,}, against {front.reference}"
    return Picture(title, subtitle, fronts(front, chosen_plan(selected)), lambda: front_table(front), _choose)


def draw_strips(selected: Selection) -> Picture | None:
    """What every plan does."""
    plans, problems = read_plans(selected.run.path)
    for problem in problems:
        st.warning(problem)
    if not plans:
        return None
    front = read_front(selected.run.path)
    points = [point for found in (front.points.values() if front else []) for point in found]
    costs = {point["plan"]: point["evaluations"] for point in points}

    def table() -> pd.DataFrame:
        steps = [(name, step) for name, plan in plans.items() for step in plan.steps]
        return pd.DataFrame([{"plan": n, "timestep": s.timestep, "does": step_name(s)} for n, s in steps])

    title = "What each plan does, from noise to image"
    return Picture(title, f"{len(plans)} plans in {selected.run.path / 'plans'}", strips(plans, costs), table, _choose)


def draw_chosen(selected: Selection) -> Picture | None:
    """The chosen plan: what it is compared with, its file, and the command that samples it."""
    plans, _ = read_plans(selected.run.path)
    if not plans:
        return None
    name = inputs.selectbox("Plan", list(plans), CHOSEN, chosen_plan(selected))
    front = read_front(selected.run.path)
    points = [point for found in (front.points.values() if front else []) for point in found]
    point = next((point for point in points if point["plan"] == name), None)
    st.caption(f"{plans[name].solver.upper()}: {plans[name]}")
    if front is not None and point is not None and point.get("compared_with"):
        rows = [
            {
                "compared with": row["plan"],
                "GFLOPs per image": row["evaluations"] * front.full_gflops,
                "saving": f"{row['saving']:.0%}",
            }
            | {m: f"{d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]" for m, d in row["differences"].items()}
            for row in point["compared_with"]
        ]
        st.dataframe(pd.DataFrame(rows), hide_index=True)
        st.caption("Paired differences at equal noise, plan minus rival, with 95 % intervals; lower is better.")
    file = selected.run.path / "plans" / f"{name}.json"
    if (steps := read_contributions(file)) is not None:
        st.dataframe(changes_text(steps), hide_index=True)
        st.caption("The change of the distance when one step is made full, or left out: above 0 the images get worse.")
    out = selected.run.path / "traces" / f"plan-{name}"
    command = f"deediff sample {typed(selected.run.path)} --plan {name} --num-samples 64 --out {typed(out)}"
    st.code(command, "bash", wrap_lines=True)
    st.download_button("JSON", file.read_bytes(), file.name, "application/json", on_click="ignore", type="tertiary")
    return None


def chosen_plan(selected: Selection) -> str | None:
    """The chosen plan, else the one of the title, else any."""
    plans, _ = read_plans(selected.run.path)
    if not plans:
        return None
    front, default = read_front(selected.run.path), next(iter(plans))
    if front is not None and front.headline is not None and front.headline[0]["plan"] in plans:
        default = front.headline[0]["plan"]
    return resolve(CHOSEN, default, {name: name for name in plans}.get)


def _choose(point: Point) -> None:
    st.session_state[CHOSEN] = point["customdata"][0]


PANELS = [
    Panel("fronts", draw_fronts, help=FRONT_HELP),
    Panel("plan strips", draw_strips, help=STRIP_HELP),
    Panel("chosen plan", draw_chosen),
    SEARCH,
]

with guarded():
    show(PANELS, current())
