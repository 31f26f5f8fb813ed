"""The error of a plan on a recording of the full network."""

from __future__ import annotations

from pathlib import Path

import pytest

from deediff.diffusion.schedule import Schedule
from deediff.plans import Plan, PlanStep
from deediff.search.cache import FeatureCache
from deediff.search.proxies import NAMES, make_proxies
from deediff.search.recorded import STEPS, Recording
from deediff.search.score import Score
from deediff.search.start import uniform_plan
from tests.search.test_search import make_toy_judge
from tests.search.toy import toy_metric


@pytest.fixture
def recording(run: Path, image_folder: Path) -> Recording:
    return Recording(make_toy_judge(run, image_folder), seed=0)


def test_more_steps_follow_the_recording_closer(recording: Recording) -> None:
    errors = [recording.deviation(uniform_plan(13, Schedule(), steps)) for steps in (3, 6, 12, STEPS)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[-1]


def test_an_exit_that_predicts_something_else_adds_its_error(recording: Recording) -> None:
    full = uniform_plan(13, Schedule(), STEPS)
    early = Plan((*full.steps[:20], PlanStep(full.timesteps[20], 2), *full.steps[21:]), 13, clip_x0=True)
    last = Plan((*full.steps[:20], PlanStep(full.timesteps[20], 13), *full.steps[21:]), 13, clip_x0=True)
    assert recording.deviation(early) > recording.deviation(full)
    assert recording.deviation(last) == pytest.approx(recording.deviation(full))


@pytest.mark.parametrize("readout", ["memory:0", "memory:1", "deep:3", "output:0"])
def test_a_step_from_memory_is_nearer_than_a_head_and_farther_than_the_network(
    readout: str, recording: Recording
) -> None:
    full, layer = uniform_plan(13, Schedule(), STEPS), 3 if readout == "deep:3" else 0

    def with_step(step: PlanStep) -> float:
        return recording.deviation(Plan((*full.steps[:40], step, *full.steps[41:]), 13, clip_x0=True))

    remembered = with_step(PlanStep(full.timesteps[40], layer, readout))
    assert recording.deviation(full) < remembered < with_step(PlanStep(full.timesteps[40], 0))


def test_every_proxy_is_measured(run: Path, image_folder: Path, tmp_path: Path) -> None:
    judge = make_toy_judge(run, image_folder)
    plan = Plan((PlanStep(999, 0, "input"), PlanStep(500), PlanStep(100, 0, "output:0")), 13, clip_x0=True)
    with toy_metric():
        proxies = make_proxies(Score(FeatureCache(judge, tmp_path), 0), 8)
        draw = judge.draw(plan, 0, range(8))
        found = proxies.measure(plan, draw)
        assert set(found) == set(NAMES)
        assert all(value > 0 for value in found.values())
        solved = proxies.measure(uniform_plan(13, Schedule(), 100), proxies.solution)
    assert solved["image"] == solved["features"] == 0
