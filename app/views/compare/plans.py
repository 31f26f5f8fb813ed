"""The validated plans of runs as points, beside the traces: their quality was measured by `deediff search`."""

from __future__ import annotations

from collections.abc import Sequence

from app.views.compare.points import Axis, Point, Reading
from app.widgets.plans.found import KINDS
from deediff.errors import UserError
from deediff.plans.front import WITHOUT_EXITS, Front, read_front
from deediff.runs import Run


def read_fronts(runs: Sequence[Run], problems: list[str]) -> dict[str, Front]:
    """The fronts by run; adds a sentence for each file that cannot be read."""
    found = {}
    for run in runs:
        try:
            front = read_front(run.path)
        except UserError as error:
            problems.append(str(error))
            continue
        if front is not None:
            found[run.name] = front
    return found


def plan_axes(fronts: dict[str, Front]) -> list[Axis]:
    """One axis per distance, reference and number of images: the one that was minimised, and the guards."""
    found: dict[tuple[str, str, str, int], Axis] = {}
    for front in fronts.values():
        for name in (front.metric, *front.guards):
            label = f"{name.upper()} · validated plans, N = {front.images:,}, against {front.reference}"
            protocol = (name, "plans", front.reference, front.images)
            found.setdefault(protocol, Axis(name, label, False, {}, protocol, of_plans=True))
    return list(found.values())


def plan_points(fronts: dict[str, Front], axis: Axis) -> list[Point]:
    """The plans that the axis has a value of."""
    return [
        point
        for run, front in fronts.items()
        if axis.protocol is not None and axis.protocol[2:] == (front.reference, front.images)
        for point in _points(run, front, axis.name)
    ]


def _points(run: str, front: Front, metric: str) -> list[Point]:
    made = []
    for kind, plans in front.points.items():
        for plan in plans:
            value = plan["metrics"].get(metric)
            if value is None:
                continue
            paired = {
                f"{run}/plans/{row['plan']}": row["differences"][metric]
                for row in plan.get("compared_with", ())
                if metric in row["differences"]
            }
            reading = Reading(value["value"], value["low"], value["high"], how="paired by noise", paired=paired)
            made.append(
                Point(
                    f"{run}/plans/{plan['plan']}",
                    run,
                    KINDS[kind],
                    str(plan["plan"]),
                    kind in WITHOUT_EXITS,
                    float(plan["gflops_per_image"]),
                    None,
                    None,
                    front.images,
                    reading,
                    len(plan["timesteps"]),
                )
            )
    return made
