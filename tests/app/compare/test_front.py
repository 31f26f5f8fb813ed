"""The Pareto front takes intervals into account, and differences are paired where they can be."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import hypot
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.views.compare.front import front, is_better, quality_gap
from app.views.compare.points import Axis, Point, Reading
from deediff.quality.jackknife import T_975
from deediff.quality.paired import quality_difference
from tests.app.compare.test_points import FID as QUALITY
from tests.app.compare.test_points import point

FID = Axis("fid", "FID", False)
PRECISION = Axis("precision", "precision", True)
SPREADS = st.tuples(st.integers(0, 6), st.integers(0, 12), st.sampled_from([0.5, 1.0, 3.0]))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12), st.booleans())
def test_without_intervals_the_front_is_what_nothing_beats(pairs: list[tuple[int, int]], higher: bool) -> None:
    points = [point(float(cost), float(value), str(k)) for k, (cost, value) in enumerate(pairs)]
    sign = -1 if higher else 1

    def beats(a: Any, b: Any) -> bool:
        mine, theirs = (a.gflops, sign * a.reading.value), (b.gflops, sign * b.reading.value)
        return mine[0] <= theirs[0] and mine[1] <= theirs[1] and mine != theirs

    kept = front(points, PRECISION if higher else FID, "gflops")
    assert {(p.gflops, p.reading.value) for p in kept} == {
        (p.gflops, p.reading.value) for p in points if not any(beats(other, p) for other in points)
    }
    assert [p.gflops for p in kept] == sorted({p.gflops for p in kept})  # each once, cheapest first


@given(st.lists(SPREADS, min_size=1, max_size=12), st.booleans())
def test_each_step_of_the_front_is_outside_the_noise_and_nothing_else_is(
    triples: list[tuple[int, int, float]], higher: bool
) -> None:
    points = [point(float(c), float(v), str(k), low=v - half, high=v + half) for k, (c, v, half) in enumerate(triples)]
    sign = -1 if higher else 1

    def beyond(a: Point, b: Point) -> bool:  # by hand: independent errors add in squares
        halves = [p.reading.high - p.reading.value for p in (a, b)]  # type: ignore[operator]
        return sign * (b.reading.value - a.reading.value) > hypot(*halves)

    kept = front(points, PRECISION if higher else FID, "gflops")
    assert all(beyond(later, earlier) for earlier, later in pairwise(kept))
    for left_out in [p for p in points if p not in kept]:
        cheaper = [p for p in kept if p.gflops <= left_out.gflops]
        assert cheaper
        assert not beyond(left_out, cheaper[-1])


def test_a_difference_inside_the_noise_is_no_front() -> None:
    cheap, dear = point(1.0, 5.0, "cheap", low=4.7, high=5.3), point(2.0, 4.8, "dear", low=4.5, high=5.1)
    assert front([cheap, dear], FID, "gflops") == [cheap]
    known = {"cheap": {"value": -0.2, "low": -0.3, "high": -0.1}}  # equal seeds: the common noise cancels
    paired = replace(dear, reading=replace(dear.reading, paired=known))
    assert front([cheap, paired], FID, "gflops") == [cheap, paired]


def test_points_without_seconds_are_not_on_a_front_of_seconds() -> None:
    assert front([point(1.0, 1.0)], FID, "seconds") == []


def test_traces_of_equal_seeds_are_paired_by_their_groups() -> None:
    groups = np.random.default_rng(0).normal(10, 0.1, 20)
    a = replace(QUALITY, without=tuple(groups), seed=0)
    b = replace(a, value=9.5, without=tuple(groups - 0.5), seed=0)
    first, second, other = (
        replace(point(1.0, q.value, str(k)), reading=Reading(q.value, q.low, q.high, quality=q))
        for k, q in enumerate((a, b, replace(b, seed=1)))
    )
    found, unpaired = quality_gap(first, second), quality_gap(first, other)
    assert (found.paired, unpaired.paired) == (True, False)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))  # the groups differ by a constant
    errors = [np.sqrt(19 / 20 * np.sum((q - q.mean()) ** 2)) for q in (groups, groups)]
    assert unpaired.high == pytest.approx(0.5 + T_975 * hypot(*errors))
    assert found.value == quality_difference(a, b).value
    assert is_better(second, first, FID)
    assert not is_better(first, second, FID)
