"""The plan designer: what is on screen follows from the steps, and the steps are in the link."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

import deediff
from deediff.datasets import to_uint8
from deediff.plans import Plan, PlanStep
from deediff.plans.file import find_plan, write_plan
from deediff.plans.text import steps_from_text, steps_to_text
from deediff.plans.trials import Trial, write_trials
from tests.app.helpers import BLOCKS, FULL, figure, in_the_link, open_app, sentences, titles

STEPS = (PlanStep(999, 0, "input"), PlanStep(700), PlanStep(400, 3), PlanStep(90, 0, "output:0"))
TEXT = "999:input,700,400:3,90:output:0"


def component(app: AppTest, key: str) -> dict[str, Any]:
    (found,) = [e.proto for e in app.get("bidi_component") if e.proto.id.endswith(f"-{key}")]
    content: dict[str, Any] = json.loads(found.json)
    return content


def images(app: AppTest, which: int) -> np.ndarray:
    """(16,H,W) of one of the three grids: this plan, the full network, the rival."""
    sources = [tile["src"].partition(",")[2] for tile in component(app, f"designer {which}")["tiles"]]
    return np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources])


def sampled(run: Path, plan: Plan, seed: int = 0) -> np.ndarray:
    *_, last = deediff.sample(deediff.load(run), plan=plan, num_samples=16, batch_size=16, seed=seed)
    return np.asarray(to_uint8(last.x))[:, 0]


def plan_of(steps: tuple[PlanStep, ...]) -> Plan:
    return Plan(steps, BLOCKS, clip_x0=True)


def test_images_and_cost_are_those_of_the_steps_in_the_link(runs: Path) -> None:
    app = open_app("designer", steps=TEXT, rival="4-uniform")
    assert not app.error
    run = runs / "toy"
    full = plan_of(tuple(PlanStep(step.timestep) for step in STEPS))
    rival = plan_of(tuple(map(PlanStep, (999, 749, 499, 249))))
    for which, plan in enumerate((plan_of(STEPS), full, rival)):
        assert np.abs(images(app, which).astype(int) - sampled(run, plan)).max() <= 2
    cost = deediff.read_trace(next((run / "traces").iterdir())).meta.cost
    at_exit = cost.at_exit(with_uem=False)
    gflops = at_exit[13] + at_exit[3]
    text = " ".join(titles(app)) + " ".join(c.value for c in app.caption)
    assert f"{1 - gflops / (4 * cost.full):.0%} less than 4-uniform ({4 * cost.full:.3g})" in text
    assert f"{gflops:.3g} GFLOPs per image" in text


def test_a_change_in_the_timeline_changes_the_plan_and_the_link(runs: Path) -> None:
    app = open_app("designer", steps=TEXT)
    shown = component(app, "timeline")
    rows = [row["text"] for row in shown["rows"]]
    marks = [(mark["t"], rows[mark["row"]]) for mark in shown["marks"]]
    assert marks == [(999, ":input"), (700, ""), (400, ":3"), (90, ":output:0")]
    changed = ",".join(f"{t}{text}" for t, text in [(999, ":input"), (640, ":5"), (400, ":3")])
    app.session_state["steps"] = changed
    app.run()
    assert in_the_link(app)["steps"] == changed
    assert [mark["t"] for mark in component(app, "timeline")["marks"]] == [999, 640, 400]
    assert np.abs(images(app, 0).astype(int) - sampled(runs / "toy", plan_of(steps_from_text(changed)))).max() <= 2


def test_another_start_replaces_the_steps(runs: Path) -> None:
    app = open_app("designer", steps=TEXT)
    app.selectbox(key="plan").set_value("6-uniform").run()
    found = steps_from_text(in_the_link(app)["steps"])
    assert [step.exit_layer for step in found] == ["full"] * 6


@pytest.mark.parametrize("text", ["999,1200", "500,700", "nonsense", "999:42"])
def test_steps_that_are_no_plan_are_named_and_the_start_is_shown(text: str, runs: Path) -> None:
    app = open_app("designer", steps=text, plan="4-uniform")
    assert f"The link sets steps = {text}" in sentences(app)
    assert len(component(app, "timeline")["marks"]) == 4


def test_a_plan_that_the_model_cannot_sample_is_a_sentence(runs: Path) -> None:
    app = open_app("designer", steps="999:output:1,500")
    assert "output:1 at timestep 999 needs 2 or more predictions before it" in sentences(app)


def test_a_plan_is_saved_once(runs: Path) -> None:
    app = open_app("designer", steps=TEXT)
    app.button(key="save plan").click().run()
    (file,) = (runs / "toy" / "plans").glob("*.json")
    assert find_plan(file.stem, runs / "toy") == plan_of(STEPS)
    assert f"--plan {file.stem} " in app.code[-1].value
    assert app.button(key="save plan").disabled


def test_the_trials_of_a_search_load_into_the_timeline(runs: Path) -> None:
    trials = [Trial(1.0, 9.0, "999"), Trial(2.0, 7.0, steps_to_text(STEPS)), Trial(3.0, 8.0, "999,500,100")]
    write_trials(runs / "toy", "all", trials)
    dots, best = figure(open_app("designer"), "search trials")["data"]
    assert [(c[1], y, c[0]) for y, c in zip(dots["y"], dots["customdata"], strict=True)] == trials
    full = deediff.read_trace(runs / "toy" / "traces" / FULL).cost.full
    assert dots["x"] == pytest.approx([1.0 * full, 2.0 * full, 3.0 * full])
    assert (best["x"], best["y"]) == (pytest.approx([1.0 * full, 2.0 * full]), [9.0, 7.0])


def test_measured_steps_are_drawn_for_the_plan_that_they_belong_to(runs: Path) -> None:
    change = {"evaluations": 3.3, "fd-mnist": {"value": 0.2, "low": 0.1, "high": 0.4}}
    rows = [{"timestep": s.timestep, "step": "s", "made_full": change, "left_out": None} for s in STEPS]
    record = {"contributions": {"metric": "fd-mnist", "rows": rows, "images": 2048, "seed": 1}}
    write_plan(runs / "toy" / "plans" / "mine.json", plan_of(STEPS), record)
    full, left_out = figure(open_app("designer", steps=TEXT), "changed steps")["data"]
    assert (full["y"], full["error_y"]["array"]) == ([0.2] * 4, pytest.approx([0.2] * 4))
    assert left_out["y"] == [None] * 4
    app = open_app("designer", steps="999,500")
    assert "What each step contributes has not been measured" in sentences(app)


def test_a_link_does_not_make_the_server_open_a_path(runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "secret"
    shutil.copytree(runs / "toy" / "checkpoints", elsewhere)
    for path in (elsewhere / "100.safetensors", "../../secret/100.safetensors"):
        app = open_app("designer", steps=f"999@{path},500")
        assert "The link sets steps" in sentences(app)
        assert str(path) not in in_the_link(app)["steps"]
