"""Claims about plans: the verdict follows from the traces' costs and from every distance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import deediff
from deediff.plans import Plan, PlanStep
from deediff.quality.results import Quality, write_quality
from tests.conftest import make_run, record
from trainer.suites.plan_claims import plan_verdicts

FULL = Quality("fd-mnist", "e", 5.0, 4.5, 5.5, "", 10, "r", "k", 60_000, 0.1, 0.01, "", "cpu", seed=0)


def evaluate(trace: deediff.Trace, **values: float) -> None:
    """Give a trace these distances, with groups of which each differs a little."""
    names = {"fd": "fd-mnist", "pixels": "fd-pixels"}
    spread = np.linspace(-0.01, 0.01, 20)
    entries = [
        replace(FULL, metric=names[name], value=value, without=tuple((value + spread * k).tolist()))
        for k, (name, value) in enumerate(values.items(), start=1)
    ]
    write_quality(trace.path, entries)


def sampled(run: Path, name: str, full_steps: int) -> deediff.Trace:
    """A plan of this many full steps, and one that reuses."""
    steps = [PlanStep(900 - 100 * k) for k in range(full_steps)]
    return record(run, name, plan=Plan((*steps, PlanStep(1, 0, "output:0")), 13), policy="never")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    run = make_run(tmp_path / "mnist_tiny")
    evaluate(record(run, "dpm12", policy="never", solver="dpm-solver++", steps=12), fd=5.0, pixels=0.1)
    return tmp_path


@pytest.mark.parametrize(
    ("full_steps", "fd", "pixels", "verdict"),
    [
        (3, 5.0, 0.1, "holds"),  # 75 % less
        (4, 5.0, 0.1, "does not hold"),  # 67 % less
        (3, 4.0, 0.3, "does not hold"),  # one distance is better, the other worse: exploited
        (3, 5.5, 0.1, "does not hold"),
    ],
)
def test_a_claim_holds_for_a_plan_that_no_distance_finds_worse(
    full_steps: int, fd: float, pixels: float, verdict: str, runs: Path
) -> None:
    evaluate(sampled(runs / "mnist_tiny", "plan", full_steps), fd=fd, pixels=pixels)
    (row,) = plan_verdicts(runs)
    assert row["verdict"] == verdict
    if fd == 5.0:
        assert f"plan: {1 - full_steps / 12:.0%} less" in row["measured"]
        assert "fd-mnist +0 [" in row["measured"]


def test_a_plan_without_a_second_distance_is_not_judged(runs: Path) -> None:
    evaluate(sampled(runs / "mnist_tiny", "plan", 3), fd=5.0)
    (row,) = plan_verdicts(runs)
    assert (row["verdict"], row["measured"]) == ("does not hold", "no evaluated plan is equal")


def test_without_the_rival_there_is_no_row(tmp_path: Path) -> None:
    make_run(tmp_path / "mnist_tiny")
    assert list(plan_verdicts(tmp_path)) == []
