"""Results of a search: a file per validated plan, and front.json with the validated plans of every kind of search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.devices import choose_device, device_name
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import FORMAT_VERSION, read_json, write_json
from deediff.plans import Plan
from deediff.plans.file import read_plan, read_validation, write_plan
from deediff.quality.progress import Progress
from deediff.search.cache import FeatureCache
from deediff.search.judge import Judge, make_judge
from deediff.search.score import Score
from deediff.search.settings import SearchSettings
from deediff.search.space import Choices
from deediff.search.start import spaced_plans, uniform_plan
from deediff.search.study import Tried
from deediff.search.validate import Validated, Validation

UNIFORM = (4, 5, 6, 8, 10, 12)  # steps of the uniform plans that every plan is compared with
HAND = (7,)  # steps of a plan of the full network whose timesteps were chosen by hand


def write_front(
    validation: Validation,
    picked: Sequence[Tried],  # the best plan of each budget
    run: Path,
    settings: SearchSettings,
    summary: dict[str, Any],  # of the search, for front.json
    progress: Progress,
) -> dict[str, Any]:
    """Validate the picked plans and the uniform ones; write each plan, then front.json, whose content is returned.

    Raises UserError when no plan was picked, and as `read_validated`.
    """
    choices, fine = settings.choices, settings.counts[-1]
    if not picked:
        raise UserError(f"no plan of {run} was measured with {fine} images yet: search for more minutes")
    judge, begun = validation.cache.judge, time.monotonic()
    given = _given(judge)
    total, done = sum(map(len, given.values())) + len(picked), 0
    known = dict[str, list[Validated]]()
    for kind, plans in given.items():
        for plan in plans:
            progress.report("validated plans", done, total)
            known.setdefault(kind, []).append(validation.of(plan, plan.name))
            done += 1
    front = read_validated(run / "front.json", validation)
    others = {kind: _validated(front, kind, run, validation) for kind in get_args(Choices) if kind != choices}
    points = list[dict[str, Any]]()
    for best in picked:
        progress.report("validated plans", done, total)
        found = validation.of(best.plan, f"{best.cost:.2f}-{choices}")
        rivals = [rival for kind in (*known.values(), *others.values()) for rival in kind]
        value, *_ = judge.measured(validation.cache.features(best.plan, settings.search_seed, fine))
        searched = {"value": value, "score": best.distances[fine], "images": fine, "seed": settings.search_seed}
        points.append(_with_differences(validation, found, rivals) | {"searched": searched})
        file = run / "plans" / f"{found.name}.json"
        write_plan(file, found.plan, record_of(points[-1], validation) | _contributions(file, found.plan))
        done += 1
    summary = summary | {"validation_seconds": round(time.monotonic() - begun, 1)}
    front = read_validated(run / "front.json", validation)  # again: another search may have ended since
    for kind, rivals in known.items():
        front[kind] = {"points": [_with_differences(validation, plan, known["uniform"]) for plan in rivals]}
    if settings.budgets != SearchSettings.budgets:  # the plans of other budgets stay
        names = [point["plan"] for point in points]
        points += [point for point in front.get(choices, {}).get("points", []) if point["plan"] not in names]
        points.sort(key=lambda point: point["evaluations"])
    _forget_comparisons(front, choices, points, run)
    front[choices] = {**summary, "device": device_name(judge.device), "points": points}
    write_json(run / "front.json", front)
    return front


def _forget_comparisons(front: dict[str, Any], choices: str, points: Sequence[dict[str, Any]], run: Path) -> None:
    """Drop what other plans say about names that now are other plans, or none; their next validation compares again."""
    now = {point["plan"]: (point["steps"], point["timesteps"]) for point in points}
    before = front.get(choices, {}).get("points", [])
    gone = {point["plan"] for point in before if now.get(point["plan"]) != (point["steps"], point["timesteps"])}
    others = [kind for kind in get_args(Choices) if kind != choices]
    for point in [point for kind in others for point in front.get(kind, {}).get("points", [])]:
        rows = [row for row in point["compared_with"] if row["plan"] not in gone]
        file = run / "plans" / f"{point['plan']}.json"
        if len(rows) < len(point["compared_with"]) and (record := read_validation(file)) is not None:
            write_plan(file, read_plan(file), record | {"compared_with": rows})
        point["compared_with"] = rows


def plans_of_front(
    front: dict[str, Any],  # of one kind of search, in front.json
    run: Path,
    score: Score,
    fine: int,  # images of a score
) -> tuple[list[Tried], dict[str, Any]]:
    """The plans of a front, with their scores measured again, and what front.json says of the search.

    Raises UserError when a plan's file is missing.
    """
    cache, picked = score.cache, list[Tried]()
    for number, point in enumerate(front.get("points", [])):
        plan = read_plan(run / "plans" / f"{point['plan']}.json")
        distances = {fine: score(cache.features(plan, score.seed, fine))}
        picked.append(Tried(number, plan, cache.judge.cost(plan), distances))
    return picked, {key: value for key, value in front.items() if key not in ("points", "device")}


def _with_differences(validation: Validation, plan: Validated, rivals: Sequence[Validated]) -> dict[str, Any]:
    """A plan in front.json, compared with rivals."""
    return validation.point(plan) | {"compared_with": validation.differences(plan, rivals)}


def _given(judge: Judge) -> dict[str, list[Plan]]:
    """Plans of the full network that no search has chosen: at uniform timesteps, and at some chosen by hand."""
    blocks, schedule = judge.model.num_blocks, judge.schedule
    uniform = [replace(uniform_plan(blocks, schedule, steps), name=f"{steps}-uniform") for steps in UNIFORM]
    spaced = [plan for plan in spaced_plans(blocks, schedule) if len(plan.steps) in HAND]
    return {"uniform": uniform, "hand": [replace(plan, name=f"{len(plan.steps)}-hand") for plan in spaced]}


def _contributions(file: Path, plan: Plan) -> dict[str, Any]:
    """What was measured about the steps of the same plan before."""
    if not file.exists() or read_plan(file) != plan:
        return {}
    before = read_validation(file) or {}
    return {"contributions": before["contributions"]} if "contributions" in before else {}


def record_of(point: dict[str, Any], validation: Validation) -> dict[str, Any]:
    """The `validation` of a plan file, from the plan's entry in front.json."""
    first = validation.cache.judge.distances[0]
    protocol: dict[str, Any] = {"metric": first.metric, "extractor": first.extractor.name}
    protocol |= {"reference": first.reference.name, "reference_images": first.reference.count}
    left_out = ("plan", "steps", "timesteps")
    return {**protocol, **{key: value for key, value in point.items() if key not in left_out}}


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
    record = record_of(_with_differences(validation, found, [other]), validation)
    write_plan(run / "plans" / f"{name}.json", found.plan, record)
    return record


def read_validated(file: Path, validation: Validation) -> dict[str, Any]:
    """The content of front.json, or the head of a new one.

    Raises UserError when its plans were validated by another protocol: their numbers are not comparable.
    """
    judge = validation.cache.judge
    first = judge.distances[0]
    head: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "metric": judge.metric,
        "guards": [distance.metric for distance in judge.distances[1:]],
        "extractor": first.extractor.name,
        "reference": first.reference.name,
        "reference_images": first.reference.count,
        "checkpoint_sha256": None if judge.model.origin is None else judge.model.origin[1],
        "full_gflops": round(judge.full_gflops, 6),
        "images": validation.images,
        "seed": validation.seed,
    }
    found = read_json(file) if file.exists() else head
    if differs := [key for key, value in head.items() if found.get(key) != value]:
        raise UserError(
            f"{file} holds plans validated by another protocol (different: {', '.join(differs)}): rename the file to "
            "keep it, or delete it"
        )
    return found


def _validated(front: dict[str, Any], kind: str, run: Path, validation: Validation) -> list[Validated]:
    """The validated plans of another kind of search."""
    names = [point["plan"] for point in front.get(kind, {}).get("points", [])]
    files = [run / "plans" / f"{name}.json" for name in names]
    return [validation.of(read_plan(file), file.stem) for file in files if file.exists()]
