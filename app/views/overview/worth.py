"""Is it worth it? Cost against quality: the validated fronts; without them, the evaluated traces."""

from __future__ import annotations

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from app.state.commands import typed
from app.state.selection import Selection
from app.state.traces import key_of, open_traces, read_qualities
from app.views.overview.budgets import ONE_DISTANCE, Contest, cheapest_without_exits, contests
from app.views.overview.figures import measured_traces, small
from app.widgets.empty import offer_evaluation
from app.widgets.formatting import signed
from app.widgets.panels import Panel, Picture, heading
from app.widgets.plans.figures import fronts
from app.widgets.plans.found import front_table
from deediff.plans.front import TOLERANCE, Front, Point, read_front

NAMES = {  # of kinds of search, in the legend of the small figure
    "uniform": "full network, uniform steps",
    "hand": "full network, by hand",
    "full": "full network, searched",
    "ends": "may skip first and last",
    "all": "plans with exits",
}
COLORS = {
    "better": "green",
    "equal": "blue",
    "undecided": "gray",
    "not compared": "gray",
    ONE_DISTANCE: "gray",
}  # of a verdict; worse: red


def draw_worth(selection: Selection) -> Picture | None:
    """The fronts; without them, the traces that were evaluated."""
    front = read_front(selection.run.path)
    if front is None:
        return _draw_traces(selection)
    judged = f"judged by {' and '.join((front.metric, *front.guards))}"
    subtitle = f"measured · {judged} · N = {front.images:,}, against {front.reference}"
    chosen = front.headline[0]["plan"] if front.headline is not None else None
    figure = small(fronts(front, chosen, NAMES), "top right")
    about = f"run {selection.run.name}"
    return Picture(about_worth(front), subtitle, figure, partial(front_table, front), about=about)


def about_worth(front: Front) -> str:
    """The cheapest plan with exits, and the cheapest without exits, that equal the uniform steps."""
    uniform = front.points.get("uniform", [])
    if not front.points.get("all"):
        return "Only samplers of the full network are validated, no plan with exits"
    if not uniform:
        return "No plan with exits was compared with uniform steps"
    steps = f"{uniform[-1]['evaluations']:.0f} uniform steps"
    if not front.guards:
        return f"Unknown: the plans were judged by {front.metric} alone, which a search may exploit"
    if front.headline is None:
        return f"No: no plan with exits gives the images of {steps}"
    plan, rival = front.headline
    full = cheapest_without_exits(front, rival)
    costs = [point["gflops_per_image"] for point in (plan, full)]
    if plan["evaluations"] > full["evaluations"] - TOLERANCE:
        return f"No: the images of {steps} cost {costs[1]:.3g} GFLOPs without exits, {costs[0]:.3g} with them"
    saved = 1 - costs[0] / costs[1]
    change = f"{costs[0]:.3g} GFLOPs with exits, {costs[1]:.3g} without (−{saved:.0%})"
    return f"Yes: the images of {steps} cost {change}"


def _draw_traces(selection: Selection) -> Picture | None:
    """The run's evaluated traces, and the command that searches plans."""
    rows, metric = evaluated_traces(selection)
    command = f"`deediff search {typed(selection.run.path)}`"
    st.caption(f"No plan of this run has been validated yet: {command} searches some (20 minutes).")
    if not rows:
        if selection.run.traces:
            offer_evaluation("No trace of this run has been evaluated either.", open_traces([selection.run], []))
        return None
    title, about = about_traces(rows, metric), f"run {selection.run.name}"
    subtitle = f"{metric} of {len(rows)} evaluated trace{'s'[: len(rows) > 1]} · measured · N = {rows[0]['images']:,}"
    return Picture(title, subtitle, measured_traces(rows, metric), partial(pd.DataFrame, rows), about=about)


def evaluated_traces(selection: Selection) -> tuple[list[dict[str, Any]], str]:
    """Cost and quality of the traces of the run that were evaluated as most of them were, and the metric."""
    traces = open_traces([selection.run], [])
    qualities = read_qualities(traces, [])
    first = {key: found[0] for key, found in qualities.items() if found and not found[0].higher_is_better}
    protocols = [quality.protocol for quality in first.values()]
    protocol = max(protocols, key=protocols.count, default=None)
    rows = []
    for trace in traces:
        quality = first.get(key_of(trace))
        if quality is None or quality.protocol != protocol:
            continue
        gflops = trace.cost.mean_gflops(trace.summary.exits, with_uem=trace.meta.policy_needs_uncertainty)
        row = {"trace": trace.path.name, "GFLOPs per image": gflops * len(trace.timesteps), "value": quality.value}
        row |= {"low": quality.low, "high": quality.high, "images": quality.images, "full": trace.meta.is_full}
        rows.append(row)
    return rows, "" if protocol is None else protocol[0]


def about_traces(rows: list[dict[str, Any]], metric: str) -> str:
    """The best trace with exits beside the best full network of at most its cost, else the cheapest."""
    full, exits = ([row for row in rows if row["full"] == kind] for kind in (True, False))
    if not full or not exits:
        return f"Only traces {'with exits' if exits else 'of the full network'} have been evaluated"
    best = min(exits, key=lambda row: row["value"])
    within = [row for row in full if row["GFLOPs per image"] <= best["GFLOPs per image"]]
    rival = min(within, key=lambda row: row["value"]) if within else min(full, key=lambda row: row["GFLOPs per image"])
    words = [f"{metric} {row['value']:.3g} for {row['GFLOPs per image']:.3g} GFLOPs" for row in (best, rival)]
    return f"With exits at best {words[0]} per image ({best['trace']}), the full network {words[1]} ({rival['trace']})"


def draw_budgets(selection: Selection) -> None:
    """The table at three budgets; nothing without fronts of both kinds."""
    front = read_front(selection.run.path)
    found = [] if front is None else contests(front)
    if front is None or not found:
        return
    title = about_budgets(found)
    paired = f"paired differences with 95 % intervals · N = {front.images:,} · lower is better"
    heading(title, paired, BUDGETS_HELP, partial(budget_table, front, found), "budgets", latex=True)
    distances = [front.metric, *front.guards]
    head = ["budget", "without exits", "plan with exits", *(f"difference of {name}" for name in distances), "images"]
    lines = [head, ["---"] * len(head), *(_cells(front, contest, distances) for contest in found)]
    st.markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _cells(front: Front, contest: Contest, distances: list[str]) -> list[str]:
    gflops = contest.budget * front.full_gflops
    changes = [contest.change.get(name) for name in distances]
    color = COLORS.get(contest.verdict, "red")
    return [
        f"{gflops:.2f} GFLOPs per image",
        *(_named(front, point) for point in (contest.rival, contest.plan)),
        *("–" if c is None else "{} [{}, {}]".format(*(signed(c[end], 3) for end in ENDS.values())) for c in changes),
        f":{color}-badge[{contest.verdict}]",
    ]


def _named(front: Front, point: Point) -> str:
    value = point["metrics"][front.metric]
    return f"`{point['plan']}`: {value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def about_budgets(found: list[Contest]) -> str:
    """How often the plan with exits is better, equal, or worse."""
    verdicts = [contest.verdict.partition(" by ")[0] for contest in found]
    counts = [f"{verdict} at {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts)]
    return f"The best plan with exits against the best without, at {len(found)} budgets: {', '.join(counts)}"


def budget_table(front: Front, found: list[Contest]) -> pd.DataFrame:
    """A row per budget, for the download."""
    rows = []
    for contest in found:
        row: dict[str, Any] = {"budget": contest.budget, "GFLOPs per image": contest.budget * front.full_gflops}
        for name, point in (("without exits", contest.rival), ("plan with exits", contest.plan)):
            value = point["metrics"][front.metric]
            row |= {name: point["plan"], f"{name}: evaluations": point["evaluations"]}
            row |= {f"{name}: {front.metric}{end}": value[key] for end, key in ENDS.items()}
        for metric, change in contest.change.items():
            row |= {f"difference of {metric}{end}": change[key] for end, key in ENDS.items()}
        rows.append(row | {"images": contest.verdict})
    return pd.DataFrame(rows)


ENDS = {"": "value", " low": "low", " high": "high"}  # of an interval, as columns
BUDGETS_HELP = (
    "At each budget the best of all validated samplers that run the full network at every step (uniform, by hand, "
    "searched), and the best plan with exits that no guard finds worse, if there is one. Their difference is paired: "
    "plan minus full network, from equal noise. *Better*: the metric is lower beyond the interval, and no distance is "
    "higher beyond its own; *equal*: no distance is higher beyond its interval, and the metric at most 0.1 higher; "
    "*undecided*: the interval is too wide to tell; *no guard*: no second distance was measured."
)
WORTH = Panel(
    "worth",
    draw_worth,
    help="Each mark is a sampler, measured with noise that was not used for choosing it; bars are 95 % intervals. "
    "Lower and further left is better. The bold grey line is the one to beat: the full network at searched timesteps.",
    question="Is it worth it?",
    more=("plans", "All plans, and what each step does"),
)
BUDGETS = Panel("budgets", draw_budgets)
