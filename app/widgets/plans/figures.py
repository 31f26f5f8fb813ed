"""Figures of plans: cost against quality per kind of search, and what each plan does at its timesteps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.widgets.figures import CHOSEN, FULL, OTHERS, A, Spec, axis, spec
from app.widgets.plans.found import KINDS
from deediff.plans import Plan, PlanStep
from deediff.plans.front import Front
from deediff.plans.plan import step_name

LOOKS = {  # of a kind of search: colour, dash, symbol
    "uniform": (FULL, "dot", "circle-open"),
    "hand": (FULL, "solid", "x"),
    "full": (FULL, "solid", "circle"),
    "ends": (OTHERS[2], "solid", "diamond"),
    "all": (A, "solid", "square"),
}
GROUPS = {  # what a step does: colour and symbol of its mark
    "full network": (FULL, "square"),
    "early exit": (A, "square"),
    "another network": (OTHERS[1], "square"),
    "policy decides": (A, "square-open"),
    "Gaussian": (OTHERS[0], "circle"),
    "ε = x": (OTHERS[3], "circle"),
    "from memory": (OTHERS[2], "square"),
    "ε reused": (OTHERS[2], "triangle-right"),
}
ROW = 24  # pixels per plan


def fronts(front: Front, chosen: str | None, names: Mapping[str, str] = KINDS) -> Spec:
    """GFLOPs per image against the metric, with intervals; a ring around the chosen plan.

    `names` are those of the kinds of search in the legend.
    """
    data = [_kind(kind, points, front.metric, names[kind]) for kind, points in front.points.items()]
    everything = [point for points in front.points.values() for point in points]
    ringed = [point for point in everything if point["plan"] == chosen]
    if ringed:
        ring = {"symbol": "circle-open", "size": 20, "color": CHOSEN, "line": {"width": 2}}
        where = {
            "x": [p["gflops_per_image"] for p in ringed],
            "y": [p["metrics"][front.metric]["value"] for p in ringed],
        }
        quiet = {"hoverinfo": "skip", "showlegend": False}
        data.append({"type": "scatter", "mode": "markers", "marker": ring, **where, **quiet})
    values = np.array([point["metrics"][front.metric]["value"] for point in everything])
    x = axis("GFLOPs per image", rangemode="tozero")
    top = float(np.quantile(values, 0.9)) * 1.15 if len(values) else 1.0
    low = min((p["metrics"][front.metric]["low"] for p in everything), default=0.0)
    y = axis(f"{front.metric}  (lower is better)", showgrid=True, range=[0.95 * low, top])
    return spec(data, x, y, height=420, showlegend=True)


def _kind(kind: str, points: Sequence[Mapping[str, Any]], metric: str, name: str) -> dict[str, Any]:
    color, dash, symbol = LOOKS[kind]
    found = [point["metrics"][metric] for point in points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [point["gflops_per_image"] for point in points],
        "y": [value["value"] for value in found],
        "error_y": {
            "array": [value["high"] - value["value"] for value in found],
            "arrayminus": [value["value"] - value["low"] for value in found],
            "symmetric": False,
            "thickness": 1,
            "width": 3,
        },
        "line": {"color": color, "dash": dash, "width": 3 if kind == "full" else 1.5},
        "marker": {"symbol": symbol, "size": 9},
        "customdata": [[p["plan"], p["steps"], p["evaluations"]] for p in points],
        "hovertemplate": f"<b>%{{customdata[0]}}</b>: {metric} %{{y:.2f}} at %{{x:.3g}} GFLOPs per image, "
        "as %{customdata[2]:.2f} evaluations of the full network<br>%{customdata[1]}<extra></extra>",
    }


def strips(plans: Mapping[str, Plan], costs: Mapping[str, float]) -> Spec:
    """One row per plan, the cheapest on top: a mark at every timestep, whose colour says what runs there."""
    names = sorted(plans, key=lambda name: (costs.get(name, np.inf), name))
    last = max((plan.num_timesteps for plan in plans.values()), default=1000)
    x = axis("timestep t  (sampling runs from left to right)", range=[last * 1.02, -last * 0.02])
    rows = {"categoryorder": "array", "categoryarray": names[::-1], "automargin": True, "showgrid": True}
    data = plan_marks({name: plans[name] for name in names})
    return spec(data, x, rows, height=110 + ROW * len(names), showlegend=True)


def plan_marks(plans: Mapping[str, Plan], size: int = 12) -> list[dict[str, Any]]:
    """Marks of what each step of each plan does: x is the timestep, y the plan's name."""
    marks: dict[str, list[tuple[int, str, str]]] = {group: [] for group in GROUPS}
    for name, plan in plans.items():
        for step in plan.steps:
            marks[step_group(step)].append((step.timestep, name, step_name(step)))
    data = []
    for group, found in marks.items():
        color, symbol = GROUPS[group]
        if found:
            look = {"color": color, "symbol": symbol, "size": size, "line": {"width": 2 if "open" in symbol else 0}}
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": group,
                    "x": [timestep for timestep, _, _ in found],
                    "y": [name for _, name, _ in found],
                    "marker": look,
                    "text": [text for _, _, text in found],
                    "customdata": [[name] for _, name, _ in found],
                    "hovertemplate": "%{y}<br>t = %{x}: %{text}<extra></extra>",
                }
            )
    return data


def step_group(step: PlanStep) -> str:
    """What a step does, as a name in GROUPS."""
    kind = step.readout.partition(":")[0]
    if kind in ("gaussian", "teleport"):
        return "Gaussian"
    if kind in ("memory", "deep"):
        return "policy decides" if step.exit_layer == "policy" else "from memory"
    if kind != "head":
        return "ε = x" if kind == "input" else "ε reused"
    if step.network is not None:
        return "another network"
    return {"full": "full network", "policy": "policy decides"}.get(str(step.exit_layer), "early exit")
