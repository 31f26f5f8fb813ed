"""Plans and plan files: reading, writing, and refused content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deediff.cli import main
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.plans.file import find_plan, read_plan, write_plan
from deediff.settings import SamplingSettings

EXAMPLE: dict[str, Any] = {
    "format_version": 1,
    "solver": "dpm-solver++",
    "clip_x0": True,
    "num_timesteps": 1000,
    "num_blocks": 13,
    "steps": [
        {"timestep": 999, "exit_layer": 0, "readout": "gaussian"},
        {"timestep": 850, "exit_layer": 0, "readout": "gaussian"},
        {"timestep": 700, "exit_layer": 3, "readout": "head"},
        {"timestep": 580},
        {"timestep": 460, "exit_layer": None},
        {"timestep": 340, "network": "../shallow"},
        {"timestep": 100, "exit_layer": 0, "readout": "output:0"},
    ],
}


def test_the_file_says_where_samples_exit() -> None:
    plan = Plan.from_json(EXAMPLE)
    assert [step.exit_layer for step in plan.steps] == [0, 0, 3, "full", "policy", "full", 0]
    assert [step.readout for step in plan.steps][-2:] == ["head", "output:0"]
    assert plan.timesteps == (999, 850, 700, 580, 460, 340, 100)
    assert (plan.uses_policy, plan.is_full) == (True, False)
    assert str(plan) == "2 gaussian, 1 exit 3, 1 full, 1 policy, 1 full of shallow, 1 output:0"


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = Plan.from_json(EXAMPLE)
    write_plan(tmp_path / "plans" / "mine.json", plan, {"value": 4.9})
    again = read_plan(tmp_path / "plans" / "mine.json")
    assert (again, again.name) == (plan, "mine")
    assert find_plan("mine", tmp_path) == plan
    with pytest.raises(UserError, match=r"no plan 'other' in .* \(it holds: mine\)"):
        find_plan("other", tmp_path)


def test_only_the_full_network_at_every_step_is_full() -> None:
    full = Plan((PlanStep(900), PlanStep(100, 13)), num_blocks=13)
    assert full.is_full
    for other in (PlanStep(100, 12), PlanStep(100, network="b"), PlanStep(100, "policy"), PlanStep(100, 0, "input")):
        assert not Plan((PlanStep(900), other), num_blocks=13).is_full


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": []}, "a plan has no steps"),
        ({"steps": [{"timestep": 5}, {"timestep": 5}]}, "timestep 5 follows 5: give each timestep once, in descending"),
        ({"steps": [{"timestep": 5}, {"timestep": 7}]}, "timestep 7 follows 5"),
        ({"steps": [{"timestep": 1000}]}, r"has timestep 1000, expected 0 … 999"),
        ({"steps": [{"timestep": 9, "exit_layer": 14}]}, r"exits at layer 14 at timestep 9, expected 0 … 13"),
        ({"steps": [{"timestep": 9, "exit": 3}]}, "a step has the unknown key 'exit', expected some of: timestep"),
        ({"steps": [{"exit_layer": 3}]}, "a step lacks timestep"),
        ({"steps": [7]}, "a step is 7, expected an object"),
        ({"steps": 7}, "steps is 7, expected a list"),
        ({"steps": [{"timestep": True}]}, "timestep is True, expected a whole number"),
        ({"steps": [{"timestep": 9, "readout": 3}]}, "readout is 3, expected a string"),
        ({"solvers": "ddim"}, "a plan has the unknown key 'solvers'"),
        ({"clip_x0": "yes"}, "clip_x0 is 'yes', expected true or false"),
        ({"eta": "1"}, "eta is '1', expected a number"),
        ({"format_version": 2}, "format_version is 2, expected 1"),
    ],
)
def test_a_bad_plan_is_one_sentence(
    change: dict[str, Any], sentence: str, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps({**EXAMPLE, **change}))
    with pytest.raises(UserError, match=sentence):
        read_plan(file)
    assert main(["sample", str(run), "--plan", str(file), "--out", str(tmp_path / "t")]) == 2
    assert str(file) in capsys.readouterr().err
    assert not (tmp_path / "t").exists()


def test_settings_take_from_a_plan_what_it_decides() -> None:
    plan = Plan.from_json(EXAMPLE)
    settings = SamplingSettings(plan=plan)
    assert (settings.solver, settings.steps, settings.timesteps) == ("dpm-solver++", 7, plan.timesteps)
    assert settings.clip_x0
    assert SamplingSettings(plan=plan, solver="dpm-solver++") == settings
    for field, value in {"solver": "ddpm", "steps": 10, "timesteps": (900, 10), "eta": 0.5}.items():
        with pytest.raises(UserError, match=f"{field} is .* but the plan decides it"):
            SamplingSettings(plan=plan, **{field: value})  # type: ignore[arg-type]
