"""Plans of a run as they lie on disk: the validated fronts, and one row per plan file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from deediff.errors import UserError
from deediff.plans import Plan
from deediff.plans.file import plan_names, read_plan
from deediff.plans.front import Front

KINDS = {  # of search, in front.json: name on screen
    "uniform": "full network, uniform timesteps",
    "hand": "full network, timesteps chosen by hand",
    "full": "full network, searched timesteps",
    "ends": "full network, may skip the first or last step",
    "all": "timesteps and exits",
}


def read_plans(run: Path) -> tuple[dict[str, Plan], list[str]]:
    """The plans of a run by name, and a sentence for each file that cannot be read."""
    found, problems = {}, []
    for name in plan_names(run):
        try:
            found[name] = read_plan(run / "plans" / f"{name}.json")
        except UserError as error:
            problems.append(str(error))
    return found, problems


def front_table(front: Front) -> pd.DataFrame:
    """A row per validated plan, with every metric and its interval."""
    rows = []
    for kind, points in front.points.items():
        for point in points:
            row = {"search": KINDS[kind], "plan": point["plan"], "evaluations": point["evaluations"]}
            row |= {"GFLOPs per image": point["gflops_per_image"], "steps": point["steps"]}
            for name, value in point["metrics"].items():
                row |= {name: value["value"], f"{name} low": value["low"], f"{name} high": value["high"]}
            rows.append(row | {"on the search's noise": point.get("searched", {}).get("value")})
    return pd.DataFrame(rows)
