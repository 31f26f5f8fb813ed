"""The non-dominated plans of a search, and the best one for each budget."""

from __future__ import annotations

from collections.abc import Sequence

from deediff.plans.front import TOLERANCE
from deediff.search.study import Tried

BUDGETS = range(2, 11)  # evaluations of the full network


def non_dominated(tried: Sequence[Tried], count: int) -> list[Tried]:
    """Plans with this many images than which none is cheaper and as near, or nearer and as cheap; by cost."""
    front: list[Tried] = []
    for plan in sorted((p for p in tried if count in p.distances), key=lambda p: (p.cost, p.distances[count])):
        if not front or plan.distances[count] < front[-1].distances[count]:
            front.append(plan)
    return front


def best_of(tried: Sequence[Tried], budget: float, count: int) -> Tried | None:
    """The plan of the smallest distance within the budget; None without one."""
    within = [plan for plan in tried if count in plan.distances and plan.cost <= budget + TOLERANCE]
    return min(within, key=lambda plan: (plan.distances[count], plan.cost), default=None)


def budget_of(cost: float, budgets: Sequence[float] = BUDGETS) -> float | None:
    """The smallest budget that a plan of this cost keeps; None when it costs more than all."""
    return next((budget for budget in sorted(budgets) if cost <= budget + TOLERANCE), None)


def best_plans(tried: Sequence[Tried], count: int, budgets: Sequence[float] = BUDGETS, each: int = 3) -> list[Tried]:
    """The `each` nearest plans of every budget, by distances of `count` images."""
    found: dict[int, Tried] = {}
    for budget in budgets:
        within = [plan for plan in tried if count in plan.distances and plan.cost <= budget + TOLERANCE]
        found |= {plan.number: plan for plan in sorted(within, key=lambda plan: plan.distances[count])[:each]}
    return list(found.values())


def to_refine(tried: Sequence[Tried], coarse: int, fine: int, budgets: Sequence[float] = BUDGETS) -> Tried | None:
    """The next plan to measure with more images: one that beats the best refined plan of its budget with few."""
    for budget in budgets:
        best, champion = best_of(tried, budget, coarse), best_of(tried, budget, fine)
        if best is None or fine in best.distances:
            continue
        if champion is None or best.distances[coarse] < champion.distances[coarse]:
            return best
    return None


def chosen(tried: Sequence[Tried], fine: int, budgets: Sequence[float] = BUDGETS) -> list[Tried]:
    """The best refined plan of every budget, each once, by cost."""
    found = [best_of(tried, budget, fine) for budget in budgets]
    return sorted({plan.digest: plan for plan in found if plan is not None}.values(), key=lambda plan: plan.cost)


def origins(tried: Sequence[Tried], count: int) -> dict[str, dict[str, int]]:
    """Where plans came from: the number of trials, and of those that are now among the best of a budget."""
    best = {plan.number for plan in best_plans(tried, count)}
    found: dict[str, dict[str, int]] = {}
    for plan in tried:
        row = found.setdefault(plan.origin, {"trials": 0, "best": 0})
        row["trials"] += 1
        row["best"] += plan.number in best
    return found
