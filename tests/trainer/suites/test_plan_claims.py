"""Claims about plans: the verdict follows from the validated costs and from every distance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.suites.plan_claims import plan_verdicts


def point(name: str, evaluations: float, gflops: float = 1.0, **changes: tuple[float, float]) -> dict[str, Any]:
    """A validated plan; `changes` are the value and the lower end of its differences from every rival."""
    names = {"fd": "fd-mnist", "pixels": "fd-pixels"}
    found = {names[key]: {"value": v, "low": low, "high": 2 * v - low} for key, (v, low) in changes.items()}
    rows = [{"plan": rival, "differences": found} for rival in ("12-uniform", "7-hand")]
    metrics = {"fd-mnist": {"value": 5.0}}
    common = {"plan": name, "evaluations": evaluations, "gflops_per_image": gflops, "metrics": metrics}
    return common | {"compared_with": rows, "timesteps": [999, 500]}


def write(root: Path, plans: list[dict[str, Any]], ends: list[dict[str, Any]] | None = None) -> list[dict[str, str]]:
    """The verdicts on a run with these plans with exits."""
    kinds = {"uniform": [point("12-uniform", 12)], "hand": [point("7-hand", 7)], "ends": ends or [], "all": plans}
    head = {"metric": "fd-mnist", "guards": ["fd-pixels"], "images": 2048, "reference": "r", "full_gflops": 1.0}
    (root / "mnist_tiny").mkdir(exist_ok=True)
    (root / "mnist_tiny" / "front.json").write_text(
        json.dumps(head | {kind: {"points": points} for kind, points in kinds.items()})
    )
    return list(plan_verdicts(root))


EQUAL = {"fd": (0.0, -0.1), "pixels": (0.0, -0.1)}


@pytest.mark.parametrize(
    ("evaluations", "changes", "verdict"),
    [
        (3.0, EQUAL, "holds"),  # 75 % less
        (4.0, EQUAL, "does not hold"),  # 67 % less
        (3.0, EQUAL | {"pixels": (0.3, 0.1)}, "does not hold"),  # one distance better, the other worse: exploited
        (3.0, {"fd": (-1.0, -1.2)}, "does not hold"),  # only one distance
        (3.0, EQUAL | {"fd": (0.5, -0.1)}, "does not hold"),  # so wide an interval proves nothing
    ],
)
def test_a_claim_holds_for_a_plan_that_no_distance_finds_worse(
    evaluations: float, changes: dict[str, tuple[float, float]], verdict: str, tmp_path: Path
) -> None:
    row, *_ = write(tmp_path, [point("plan", evaluations, **changes)])
    assert row["verdict"] == verdict
    if changes == EQUAL:
        assert f"plan: {1 - evaluations / 12:.0%} less than 12-uniform" in row["measured"]
        assert "fd-mnist +0 [-0.1, +0.1], fd-pixels +0 [-0.1, +0.1], N = 2,048" in row["measured"]


def test_the_rival_with_cheap_ends_must_be_equal_too(tmp_path: Path) -> None:
    """The rival is the cheapest plan without exits that equals uniform steps, not a cheaper one of worse images.

    Where a search over `ends` found none, it is the uniform steps themselves: they are a plan of that space, too.
    """
    ends = [point("worse", 3.0, fd=(1.0, 0.5), pixels=(0.0, -0.1)), point("rival", 5.0, **EQUAL)]
    _, row, _ = write(tmp_path, [point("plan", 3.0, **EQUAL)], ends)
    assert row["verdict"] == "holds"
    assert "plan: 40% less than rival" in row["measured"]
    _, row, _ = write(tmp_path, [point("plan", 3.1, **EQUAL)], ends)
    assert row["verdict"] == "does not hold"
    _, row, _ = write(tmp_path, [point("plan", 3.0, **EQUAL)], ends[:1])
    assert "plan: 75% less than 12-uniform" in row["measured"]


@pytest.mark.parametrize(("gflops", "value", "verdict"), [(1.25, 0.19, "holds"), (1.26, 0.1, "does not hold"),
                                                          (1.0, 0.21, "does not hold")])  # fmt: skip
def test_a_cheap_plan_is_near_the_timesteps_chosen_by_hand(
    gflops: float, value: float, verdict: str, tmp_path: Path
) -> None:
    *_, row = write(tmp_path, [point("plan", 3.0, gflops, fd=(value, 0.0), pixels=(0.0, -0.1))])
    assert row["verdict"] == verdict


def test_without_fronts_there_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "mnist_tiny").mkdir()
    assert list(plan_verdicts(tmp_path)) == []
