"""The validated fronts of a run (`RUN/front.json`), and which plans give the images of another for less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deediff.errors import UserError
from deediff.json_files import read_json

KINDS = ("uniform", "hand", "full", "ends", "all")  # of search, in the order of their freedom
WITHOUT_EXITS = KINDS[:4]  # ends may skip the first or last step
TOLERANCE = 0.1  # of a budget in evaluations, for readouts that cost little
ROOM = 0.1  # by which the metric of an equal plan may be above the rival's

Point = Mapping[str, Any]  # a plan: see deediff/README.md, "Search"


@dataclass(frozen=True)
class Front:
    """The validated plans of each kind of search."""

    metric: str  # that the searches minimised
    guards: tuple[str, ...]  # other distances, which no plan may worsen
    images: int
    reference: str
    full_gflops: float  # of one evaluation of the full network
    points: Mapping[str, list[Point]]  # kind: by cost

    def point(self, plan: str) -> Point | None:
        """A plan by its name; None where it was not validated."""
        return next((point for found in self.points.values() for point in found if point["plan"] == plan), None)

    def is_equal(self, point: Point, rival: str) -> bool:
        """Whether a plan gives images as good as the rival's.

        No distance is worse beyond its paired 95 % interval, and the metric at most ROOM above. False where the two
        were not compared, and without guards: a search may exploit the one distance that it minimises.
        """
        change = self.change(point, rival)
        if not change or not self.guards or change[self.metric]["value"] > ROOM:
            return False
        return all(name in change and change[name]["low"] <= 0 for name in (self.metric, *self.guards))

    def change(self, point: Point, rival: str) -> Mapping[str, Any]:
        """Paired differences of a plan from its rival, by metric; empty where the two were not compared."""
        rows = point.get("compared_with", [])
        return next((row["differences"] for row in rows if row["plan"] == rival), {})

    def cheapest_like(self, rival: str, *kinds: str) -> Point | None:
        """The cheapest plan of some kinds of search (none: with exits) that is equal to another plan."""
        points = [point for kind in kinds or ("all",) for point in self.points.get(kind, [])]
        equal = [point for point in points if point["plan"] == rival or self.is_equal(point, rival)]
        return min(equal, key=lambda point: point["evaluations"], default=None)

    @property
    def headline(self) -> tuple[Point, Point] | None:
        """The cheapest plan with exits that equals the uniform plan of most steps, and that one; None without one."""
        rival = max(self.points.get("uniform", []), key=lambda point: point["evaluations"], default=None)
        plan = None if rival is None else self.cheapest_like(rival["plan"])
        return None if rival is None or plan is None else (plan, rival)


def read_front(run: Path) -> Front | None:
    """The fronts of a run folder; None where there are none. Raises UserError when the file is damaged."""
    file = run / "front.json"
    if not file.exists():
        return None
    content = read_json(file)
    try:
        points = {kind: list(content[kind]["points"]) for kind in KINDS if kind in content}
        for found in points.values():
            found.sort(key=lambda point: point["evaluations"])
        metric = str(content["metric"])
        if any(metric not in point["metrics"] for found in points.values() for point in found):
            raise KeyError(metric)
        head = (metric, tuple(map(str, content.get("guards", ()))), int(content["images"]), str(content["reference"]))
        return Front(*head, float(content["full_gflops"]), points)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is not a readable front ({error}): run 'deediff search {run}' again") from None
