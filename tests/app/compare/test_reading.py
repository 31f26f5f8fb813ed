"""The best at a budget, and the cheapest at a quality."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.views.compare.points import Axis
from app.views.compare.reading import at_budget, at_level, best_full, reading_sentence, rounded
from tests.app.compare.test_points import point

FID = Axis("fid", "FID", False)
PRECISION = Axis("precision", "precision", True)
FULL = "full network"
POINTS = [
    point(10.0, 5.0, "r/ten", FULL, low=4.9, high=5.1),
    point(12.0, 4.0, "r/twelve", FULL, low=3.8, high=4.2),
    point(6.0, 4.3, "r/six", low=4.15, high=4.45),
    point(3.0, 4.9, "r/three"),
]


def test_the_winner_comes_first_and_the_best_of_the_other_kind_second() -> None:
    assert [p.key for p in at_budget(POINTS, FID, "gflops", 11.0)] == ["r/six", "r/ten"]
    assert [p.key for p in at_budget(POINTS, FID, "gflops", 12.0)] == ["r/twelve", "r/six"]
    assert [p.key for p in at_budget(POINTS, FID, "gflops", 5.0)] == ["r/three"]
    assert [p.key for p in at_level(POINTS, FID, "gflops", 5.0)] == ["r/three", "r/ten"]
    assert [p.key for p in at_level(POINTS, FID, "gflops", 4.0)] == ["r/twelve"]
    assert at_level(POINTS, FID, "gflops", 3.0) == []
    assert [p.key for p in at_level(POINTS, PRECISION, "gflops", 4.95)] == ["r/ten"]
    best = best_full(POINTS, FID, "gflops")
    assert best is not None
    assert best.key == "r/twelve"


def test_the_sentence_has_the_interval_of_the_difference_and_says_how_it_was_measured() -> None:
    text = reading_sentence("best is", at_budget(POINTS, FID, "gflops", 12.0), FID, "gflops", "costs so little")
    assert "**full network, r/twelve** (fid 4, 12 GFLOPs per image)" in text
    assert "With exits: threshold, r/six (fid 4.3, 6 GFLOPs per image)" in text
    assert "−0.3 [−0.55, −0.05], outside the noise (unpaired" in text  # 0.2² + 0.15² = 0.25²
    text = reading_sentence("best is", at_budget(POINTS, FID, "gflops", 5.0), FID, "gflops", "costs so little")
    assert text.endswith("None of the full network costs so little.")
    assert reading_sentence("best is", [], FID, "gflops", "").endswith("none of these.")
    text = reading_sentence("cheapest is", at_level(POINTS, FID, "gflops", 5.0), FID, "gflops", "")
    assert text.endswith("−0.1, without an interval.")


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(0.1, 20), st.booleans()), min_size=1, max_size=10),
    st.floats(0.1, 20),
)
def test_nothing_within_the_limit_is_better_or_cheaper(rows: list[tuple[float, float, bool]], limit: float) -> None:
    points = [point(c, v, f"r/{k}", FULL if full else "fixed") for k, (c, v, full) in enumerate(rows)]
    within = [v for c, v, _ in rows if c <= limit]
    best = at_budget(points, FID, "gflops", limit)
    assert [p.reading.value for p in best[:1]] == ([min(within)] if within else [])
    good = [c for c, v, _ in rows if v <= limit]
    cheapest = at_level(points, FID, "gflops", limit)
    assert [p.gflops for p in cheapest[:1]] == ([min(good)] if good else [])


@given(st.floats(1e-6, 1e6))
def test_a_rounded_position_keeps_its_side(value: float) -> None:
    assert rounded(value, False) <= value <= rounded(value, True)
    assert abs(rounded(value) - value) <= 1e-3 * value
    assert len(f"{rounded(value):.12g}".strip("0.").replace(".", "").replace("-", "").split("e")[0]) <= 5
