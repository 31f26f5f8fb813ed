"""Every proposed plan is one that the model can sample by."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deediff.diffusion.schedule import Schedule
from deediff.plans import Plan, PlanStep
from deediff.plans.file import write_plan
from deediff.sampling.sampler import prepare_sampling
from deediff.search.moves import change
from deediff.search.space import Choices, Space, distinct, make_space
from deediff.search.start import start_plans, uniform_plan
from deediff.settings import SamplingSettings
from tests.conftest import TINY, make_model, make_run
from tests.sampling.common import MODEL

SPACES = {kind: make_space(kind, MODEL, Schedule(), Path("none/run")) for kind in get_args(Choices)}
KINDS = st.sampled_from(get_args(Choices))


@st.composite
def parameters(draw: Any, space: Space) -> dict[str, Any]:
    steps = draw(st.integers(space.least_steps, space.most_steps))
    found: dict[str, Any] = {"steps": steps}
    for s in range(steps):
        found[f"gap{s}"] = draw(st.floats(0, 1))
        found[f"step{s}"] = draw(st.sampled_from(space.allowed(s, steps)))
    return found


@settings(max_examples=100)
@given(st.data(), KINDS, st.integers(0, 2**31))
def test_every_proposal_is_a_plan_that_the_model_can_follow(data: Any, kind: Choices, seed: int) -> None:
    space, rng = SPACES[kind], np.random.default_rng(seed)
    plan = space.from_parameters(data.draw(parameters(space)))
    other = space.from_parameters(data.draw(parameters(space)))
    for _ in range(4):
        prepare_sampling(MODEL, SamplingSettings(plan=plan))
        assert space.holds(plan)
        assert plan.timesteps[0] == 999
        assert space.from_parameters(space.to_parameters(plan)) == plan
        plan = change(plan, [other], space, rng)


def test_equal_gaps_are_uniform_timesteps() -> None:
    plan = SPACES["full"].from_parameters({"steps": 4, **{f"gap{s}": 0.3 for s in range(4)}})
    assert plan.timesteps == (999, 749, 500, 250)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20))
def test_distinct_timesteps_descend(timesteps: list[int]) -> None:
    found = distinct(sorted(timesteps, reverse=True))
    assert all(a > b for a, b in pairwise(found))
    assert found[-1] >= 0
    if len(set(timesteps)) == len(timesteps):
        assert found == sorted(timesteps, reverse=True)


def test_choices_differ_in_what_a_step_may_do() -> None:
    full, ends, every = (SPACES[kind] for kind in ("full", "ends", "all"))
    assert full.names == ["full"]
    assert [ends.allowed(s, 3) for s in range(3)] == [["full", "input"], ["full"], ["full", "output:0"]]
    assert {"full", "input", "exit 3", "output:1"} <= set(every.allowed(2, 3))
    assert {"memory:0", "memory:1", "deep:3"} <= set(every.allowed(2, 3))
    assert not {"output:0", "output:1", "memory:0", "deep:3"} & set(every.allowed(0, 3))
    assert "gaussian" not in every.names, "this model has no statistics of a Gaussian"


def test_smaller_networks_beside_the_run_are_options(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    make_run(tmp_path / "shallow", make_model(config=replace(TINY, depth=2)))
    make_run(tmp_path / "same")
    make_run(tmp_path / "other-size", make_model(config=replace(TINY, depth=2, img_size=8)))
    space = make_space("all", MODEL, Schedule(), run)
    assert [option.network for option in space.options if option.network] == ["../shallow"]
    names = ["memory:0", "full", "memory:1", "deep:3", "full of shallow", "memory:1", "memory:1"]
    plan = space.plan([900, 800, 700, 600, 500, 400, 300], names)
    assert [step.readout for step in plan.steps] == ["head", "head", "memory:1", "deep:3", "head", "head", "memory:0"]


@pytest.mark.parametrize("kind", get_args(Choices))
def test_a_search_starts_with_plans_of_its_space(kind: Choices, tmp_path: Path) -> None:
    space, schedule = SPACES[kind], Schedule()
    plans = start_plans(space, schedule, tmp_path / "run")
    assert uniform_plan(MODEL.num_blocks, schedule, 8) in plans
    assert all(space.holds(plan) for plan in plans)
    assert len(set(plans)) == len(plans)


def test_plans_of_runs_beside_it_are_tried(tmp_path: Path) -> None:
    space = SPACES["all"]
    mine = space.plan([999, 431, 77], ["input", "full", "output:0"])
    theirs = Plan((PlanStep(999), PlanStep(400, network="../unknown")), MODEL.num_blocks, clip_x0=True)
    write_plan(tmp_path / "other" / "plans" / "a.json", mine)
    write_plan(tmp_path / "other" / "plans" / "b.json", theirs)
    (tmp_path / "other" / "plans" / "c.json").write_text("damaged")
    plans = start_plans(space, Schedule(), tmp_path / "run")
    assert mine in plans
    assert theirs not in plans, "its network is not there"
