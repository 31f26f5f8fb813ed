"""The rival of a plan with exits is the strongest sampler without."""

from __future__ import annotations

from typing import Any

from app.views.overview.budgets import best_within, cheapest_without_exits
from deediff.plans.front import Front

EQUAL = {"fd": {"value": 0.0, "low": -0.1, "high": 0.1}, "pixels": {"value": 0.0, "low": -0.1, "high": 0.1}}


def point(name: str, evaluations: float, value: float) -> dict[str, Any]:
    compared = [{"plan": "12-uniform", "differences": EQUAL}]
    metrics = {"fd": {"value": value}}
    return {"plan": name, "evaluations": evaluations, "metrics": metrics, "compared_with": compared}


def test_plans_that_skip_the_first_or_last_evaluation_are_rivals_too() -> None:
    uniform, full, ends = point("12-uniform", 12, 5.0), point("8-full", 8, 5.0), point("6-ends", 6, 4.9)
    points = {"uniform": [uniform], "full": [full], "ends": [ends], "all": [point("3-all", 3, 5.0)]}
    front = Front("fd", ("pixels",), 10, "r", 1.0, points)
    assert cheapest_without_exits(front, uniform) == ends
    assert cheapest_without_exits(Front("fd", ("pixels",), 10, "r", 1.0, points | {"ends": []}), uniform) == full
    assert best_within(front, list(points)[:3], 12) == ends
