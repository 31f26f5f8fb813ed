"""Differences between points with their intervals, and the Pareto front, on which a difference inside the noise is
none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

from app.views.compare.points import Axis, Point, Reading, cost_of
from deediff.quality.paired import quality_difference


@dataclass(frozen=True)
class Gap:
    """The quality of one point minus another's."""

    value: float
    low: float | None = None  # 95 % interval; None where an interval of either is unknown
    high: float | None = None
    paired: bool = False  # at equal seeds, where most of the noise cancels

    @property
    def inside_noise(self) -> bool:
        """Zero lies in the interval. Without an interval no noise is known, and only equal values are equal."""
        return (self.value if self.low is None else self.low) <= 0 <= (self.value if self.high is None else self.high)


def quality_gap(first: Point, second: Point) -> Gap:
    """First minus second: paired where the difference at equal seeds is known, else from both intervals."""
    a, b = first.reading, second.reading
    known, other = a.paired.get(second.key), b.paired.get(first.key)
    if known is not None:
        return Gap(known["value"], known["low"], known["high"], True)
    if other is not None:
        return Gap(-other["value"], -other["high"], -other["low"], True)
    if a.quality is not None and b.quality is not None and a.quality.without and b.quality.without:
        found = quality_difference(a.quality, b.quality)
        return Gap(found.value, found.low, found.high, found.paired)
    return _unpaired(a, b)


def _unpaired(a: Reading, b: Reading) -> Gap:
    """Of two independent values, by their intervals."""
    value = a.value - b.value
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Gap(value)
    return Gap(
        value, value - hypot(a.value - a.low, b.high - b.value), value + hypot(a.high - a.value, b.value - b.low)
    )


def is_better(first: Point, second: Point, axis: Axis) -> bool:
    """Whether the first is better than the second beyond the interval of their difference."""
    found = quality_gap(first, second)
    return not found.inside_noise and (found.value > 0) == axis.higher_is_better


def front(points: Sequence[Point], axis: Axis, cost: str) -> list[Point]:
    """The Pareto front, cheapest first: each point is better than the one before beyond the interval of the difference.

    A point that costs more than one of the front, and is not better beyond the noise, is not on it.
    """
    sign = -1.0 if axis.higher_is_better else 1.0
    known = [(c, sign * p.reading.value, p.key, p) for p in points if (c := cost_of(p, cost)) is not None]
    kept: list[Point] = []
    for _, _, _, point in sorted(known, key=lambda entry: entry[:3]):
        if not kept or is_better(point, kept[-1], axis):
            kept.append(point)
    return kept
