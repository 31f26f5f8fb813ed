"""What each step of a plan contributes: the same images with this step made full, and without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.devices import choose_device
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.plans.file import find_plan, read_validation, write_plan
from deediff.plans.plan import step_name
from deediff.quality.paired import quality_difference
from deediff.quality.progress import Progress
from deediff.search.cache import FeatureCache
from deediff.search.judge import make_judge
from deediff.search.settings import SearchSettings
from deediff.search.validate import Validation


def contributions(validation: Validation, plan: Plan, progress: Progress) -> list[dict[str, Any]]:
    """A row per step; differences are the changed plan minus the plan, paired at equal noise, for every metric.

    None where a change gives no valid plan, or none that differs. Raises UserError as sampling does.
    """
    own = validation.of(plan, plan.name)
    rows = []
    for s, step in enumerate(plan.steps):
        progress.report("steps", s, len(plan.steps))
        row: dict[str, Any] = {"timestep": step.timestep, "step": step_name(step)}
        changes = {"made_full": _changed(plan, s, [PlanStep(step.timestep)]), "left_out": _changed(plan, s, [])}
        for name, changed in changes.items():
            row[name] = None
            if changed is not None and _runs(validation, changed):
                other = validation.of(changed, name)
                pairs = [(entry, own.of(entry.metric)) for entry in other.quality]
                found = {a.metric: quality_difference(a, b) for a, b in pairs}
                row[name] = {"evaluations": round(other.cost, 4)} | {
                    metric: {key: round(getattr(change, key), 5) for key in ("value", "low", "high")}
                    for metric, change in found.items()
                }
        rows.append(row)
    return rows


def _changed(plan: Plan, s: int, steps: Sequence[PlanStep]) -> Plan | None:
    """The plan with other steps in place of step `s`; None where that is the plan itself, or has no first timestep."""
    if s == 0 and not steps:
        return None  # the noise that sampling starts from belongs to the first timestep
    changed = replace(plan, steps=(*plan.steps[:s], *steps, *plan.steps[s + 1 :]))
    return None if changed == plan else changed


def _runs(validation: Validation, plan: Plan) -> bool:
    """Whether the changed plan can be sampled: a readout may lack the predictions that it reads."""
    try:
        validation.cache.judge.check(plan)
    except UserError:
        return False
    return True


def measure_steps(
    run: str | Path,
    name: str,  # of a plan of the run
    settings: SearchSettings | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """`contributions` of a plan, which are added to its file. Raises UserError when there is no such plan."""
    run, settings, progress = Path(run), settings or SearchSettings(), progress or Progress()
    plan, file = find_plan(name, run), run / "plans" / f"{name}.json"
    model, info = load_checkpoint(find_checkpoint(run), choose_device(settings.device))
    judge = make_judge(model, Schedule(**info["schedule"]), run, settings, progress)
    validation = Validation(FeatureCache(judge, run / "search"), settings.validation_seed, settings.validation_images)
    rows = contributions(validation, plan, progress)
    if file.exists():
        found = {"images": validation.images, "seed": validation.seed, "metric": judge.metric, "rows": rows}
        write_plan(file, plan, {**(read_validation(file) or {}), "contributions": found})
    return rows
