"""One plan measured as those of a search are, on noise that no search has seen, beside a rival."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.devices import choose_device
from deediff.diffusion.schedule import Schedule
from deediff.plans import Plan
from deediff.plans.file import write_plan
from deediff.quality.progress import Progress
from deediff.search.cache import FeatureCache
from deediff.search.judge import make_judge
from deediff.search.report import record_of
from deediff.search.settings import SearchSettings
from deediff.search.validate import Validation


def measure_plan(
    run: str | Path,
    name: str,
    plan: Plan,
    rival: Plan,
    settings: SearchSettings | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a plan as `RUN/plans/NAME.json` with its metrics and its paired difference from the rival.

    Returns the record. Raises UserError when the model cannot sample by a plan, or no metric fits its images.
    """
    run, settings, progress = Path(run), settings or SearchSettings(), progress or Progress()
    model, info = load_checkpoint(find_checkpoint(run), choose_device(settings.device))
    judge = make_judge(model, Schedule(**info["schedule"]), run, settings, progress)
    validation = Validation(FeatureCache(judge, run / "search"), settings.validation_seed, settings.validation_images)
    progress.report("measured plans", 0, 2)
    other = validation.of(rival, rival.name)
    progress.report("measured plans", 1, 2)
    found = validation.of(replace(plan, name=name), name)
    record = record_of(validation.point(found) | {"compared_with": validation.differences(found, [other])}, validation)
    write_plan(run / "plans" / f"{name}.json", found.plan, record)
    return record
