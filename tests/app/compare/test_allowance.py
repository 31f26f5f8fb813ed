"""At most so many percent worse: the winner by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.views.compare.allowance import cheapest_within, sentence
from app.views.compare.points import Axis
from tests.app.compare.test_points import point

FID = Axis("fid", "FID", False)
PRECISION = Axis("precision", "precision", True)
FULL = [point(10.0, 5.0, "r/ten", "full network"), point(12.0, 4.0, "r/twelve", "full network")]
POINTS = [*FULL, point(6.0, 4.3, "r/six"), point(3.0, 4.9, "r/three"), point(1.0, 4.0, "other/one")]


def test_the_winner_is_the_cheapest_of_the_same_run_within_the_allowance() -> None:
    answers = {percent: cheapest_within(POINTS, FID, "gflops", percent) for percent in (0, 10, 25, 30)}
    winners = {percent: found and found[1] and found[1].key for percent, found in answers.items()}
    assert winners == {0: None, 10: "r/six", 25: "r/three", 30: "r/three"}
    assert all(found is not None and found[0].key == "r/twelve" for found in answers.values())
    text = sentence(answers[10], FID, "gflops", 10)
    assert "r/six** (fid 4.3) costs 50% less than full network, r/twelve (fid 4): 6 against 12 GFLOPs" in text
    assert sentence(answers[0], FID, "gflops", 0).startswith("None is cheaper than full network, r/twelve")


def test_a_share_is_better_when_it_is_higher() -> None:
    shares = [point(10.0, 0.8, "r/full", "full network"), point(5.0, 0.77, "r/a"), point(4.0, 0.7, "r/b")]
    found = cheapest_within(shares, PRECISION, "gflops", 5)
    assert found is not None
    assert found[1] is not None
    assert found[1].key == "r/a"


@given(st.lists(st.tuples(st.floats(0.1, 20), st.floats(0.1, 20)), max_size=12), st.integers(0, 100))
def test_a_larger_allowance_never_costs_more(values: list[tuple[float, float]], percent: int) -> None:
    points = [*FULL, *(point(cost, value, f"r/{k}") for k, (cost, value) in enumerate(values))]
    costs = []
    for allowed in (percent, percent + 10):
        found = cheapest_within(points, FID, "gflops", allowed)
        assert found is not None
        costs.append((found[1] or found[0]).gflops)
    assert costs[1] <= costs[0]


def test_without_the_full_network_there_is_no_answer() -> None:
    assert cheapest_within(POINTS[2:], FID, "gflops", 5) is None
    assert sentence(None, FID, "gflops", 5) == "No trace of the full network is among these."
