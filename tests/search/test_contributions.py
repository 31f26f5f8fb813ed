"""The contribution of a step is the difference that changing this step alone makes."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.plans.file import read_plan, read_validation, write_plan
from deediff.search import SearchSettings, measure_steps
from tests.search.toy import IMAGES, toy_metric

STEPS = (PlanStep(999, 0, "input"), PlanStep(600, 3), PlanStep(300), PlanStep(50, 0, "output:1"))


def measured(run: Path, images: Path) -> list[dict]:
    settings = SearchSettings(metric="fd-toy", reference=str(images), validation_images=IMAGES, device="cpu")
    with toy_metric():
        return measure_steps(run, "p", settings)


def test_each_step_is_changed_alone_and_a_step_that_is_full_changes_nothing(run: Path, image_folder: Path) -> None:
    write_plan(run / "plans" / "p.json", Plan(STEPS, 13, clip_x0=True), {"value": 1})
    rows = measured(run, image_folder)
    assert [(row["timestep"], row["step"]) for row in rows] == [
        (999, "input"),
        (600, "exit 3"),
        (300, "full"),
        (50, "output:1"),
    ]
    costs = [row["made_full"] and row["made_full"]["evaluations"] for row in rows]
    cheap = costs[0] - 1  # of the plan: one more evaluation in place of `input`
    assert costs[2] is None
    assert costs[3] == pytest.approx(cheap + 1)
    assert 1 < cheap < costs[1] < cheap + 1
    assert rows[0]["left_out"] is None
    assert rows[2]["left_out"]["evaluations"] == pytest.approx(cheap - 1)
    change = rows[1]["made_full"]["fd-toy"]
    assert change["low"] <= change["value"] <= change["high"]
    found = read_validation(run / "plans" / "p.json")
    assert found is not None
    assert found["value"] == 1
    assert found["contributions"]["rows"] == rows
    assert read_plan(run / "plans" / "p.json").steps == STEPS


def test_a_change_that_cannot_be_sampled_is_none(run: Path, image_folder: Path) -> None:
    write_plan(run / "plans" / "p.json", Plan((PlanStep(900), PlanStep(500), PlanStep(90, 0, "output:1")), 13))
    assert measured(run, image_folder)[1]["left_out"] is None  # output:1 needs two predictions


def test_a_missing_plan_is_a_sentence(run: Path) -> None:
    with mock.patch("deediff.search.contributions.make_judge"), pytest.raises(UserError, match="there is no plan 'p'"):
        measure_steps(run, "p")
