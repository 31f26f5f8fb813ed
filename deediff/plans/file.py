"""Plan files, and plans by name: those in the `plans` folder of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.plans.plan import Plan


def read_plan(path: Path) -> Plan:
    """Read a plan file. Raises UserError, naming the file, when it is missing or is not a valid plan."""
    try:
        plan = Plan.from_json(read_json(path))
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    return plan if plan.name else replace(plan, name=path.stem)


def write_plan(path: Path, plan: Plan, validation: dict[str, Any] | None = None) -> None:
    """Write a plan file, with the record of how the plan was measured if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, plan.to_json() | ({} if validation is None else {"validation": validation}))


def read_validation(path: Path) -> dict[str, Any] | None:
    """The record of how a plan was measured; None where it was not. Raises UserError as `read_json`."""
    found = read_json(path).get("validation")
    return found if isinstance(found, dict) else None


def find_plan(name: str, run: Path | None) -> Plan:
    """The plan of a file or, by its name, of the run folder. Raises UserError when there is none."""
    if name.endswith(".json") or Path(name).is_file():
        return read_plan(Path(name))
    if run is None:
        raise UserError(f"plan {name!r} is no file, and the model belongs to no run in which to look for it")
    file = run / "plans" / f"{name}.json"
    if not file.is_file():
        there = ", ".join(plan_names(run)) or "none"
        raise UserError(
            f"there is no plan {name!r} in {run / 'plans'} (it holds: {there}): give one of them, or a file"
        )
    return read_plan(file)


def plan_names(run: Path) -> list[str]:
    """Names of the plans of a run folder."""
    return sorted(file.stem for file in (run / "plans").glob("*.json"))
