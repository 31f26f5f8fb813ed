"""At a budget: the best sampler without exits, the best plan with exits, and their paired difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

from deediff.plans.front import TOLERANCE, WITHOUT_EXITS, Front, Point

WITH_EXITS = ("all",)
ROWS = 3  # of the table
ONE_DISTANCE = "no guard"  # verdict where only the distance that the search minimised is known


@dataclass(frozen=True)
class Contest:
    """Two samplers within one budget, in evaluations of the full network per image."""

    budget: int
    rival: Point  # without exits
    plan: Point  # with exits
    change: Mapping[str, Any]  # paired, plan minus rival, by metric; empty where the two were not compared
    verdict: str  # of the plan's images


def best_within(front: Front, kinds: Sequence[str], budget: float, rival: Point | None = None) -> Point | None:
    """The plan of these kinds with the best metric within the budget; None without one.

    Plans that a guard finds worse than the rival come last: they may exploit the metric.
    """

    def rank(point: Point) -> tuple[bool, float, float]:
        change = {} if rival is None else front.change(point, rival["plan"])
        worse = any(name in change and change[name]["low"] > 0 for name in front.guards)
        return worse, point["metrics"][front.metric]["value"], point["evaluations"]

    points = [point for kind in kinds for point in front.points.get(kind, [])]
    return min((p for p in points if p["evaluations"] <= budget + TOLERANCE), key=rank, default=None)


def contests(front: Front) -> list[Contest]:
    """At the lowest budget that both keep, at the highest of the front, and between them (geometric mean)."""
    costs = [point["evaluations"] for kind in (*WITHOUT_EXITS, *WITH_EXITS) for point in front.points.get(kind, [])]
    found = []
    for budget in range(1, ceil(max(costs, default=0) - TOLERANCE) + 1):
        rival = best_within(front, WITHOUT_EXITS, budget)
        plan = best_within(front, WITH_EXITS, budget, rival)
        if rival is not None and plan is not None:
            change = front.change(plan, rival["plan"])
            found.append(Contest(budget, rival, plan, change, verdict(front, plan, rival)))
    if len(found) <= ROWS:
        return found
    middle = sqrt(found[0].budget * found[-1].budget)
    return [found[0], min(found[1:-1], key=lambda contest: abs(contest.budget - middle)), found[-1]]


def verdict(front: Front, plan: Point, rival: Point) -> str:
    """Of the plan's images beside the rival's, by the paired 95 % intervals of every distance."""
    change = front.change(plan, rival["plan"])
    distances = (front.metric, *front.guards)
    if not all(name in change for name in distances):
        return "not compared"
    worse = [name for name in distances if change[name]["low"] > 0]
    if worse:
        return f"worse by {' and '.join(worse)}"
    if not front.guards:
        return ONE_DISTANCE
    if change[front.metric]["high"] < 0:
        return "better"
    return "equal" if front.is_equal(plan, rival["plan"]) else "undecided"


def cheapest_without_exits(front: Front, rival: Point) -> Point:
    """The cheapest sampler without exits whose images equal the rival's; the rival itself without another."""
    return front.cheapest_like(rival["plan"], *WITHOUT_EXITS) or rival
