"""*Sample live*: the images on screen are those of the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import deediff
from deediff.cost.components import model_cost
from deediff.plans import Plan, PlanStep
from deediff.plans.file import write_plan
from deediff.policies.registry import POLICIES
from tests.app.helpers import (
    APP,
    BLOCKS,
    STEPS,
    calibrate_run,
    in_the_link,
    metric,
    open_app,
    press,
    sentences,
    shown_tiles,
    write_run,
)
from tests.conftest import sample_trace


def test_live_sampling_shows_what_the_library_samples(runs: Path) -> None:
    app = open_app("live")
    app.slider(key="live tau").set_value(0.12)
    app.number_input(key="live steps").set_value(STEPS)
    app.number_input(key="live images").set_value(3)
    app.number_input(key="live seed").set_value(7).run()
    app = press(app)
    assert not app.error
    model = deediff.load(runs / "toy")
    steps = list(deediff.sample(model, num_samples=3, policy="threshold:0.12", steps=STEPS, seed=7, batch_size=3))
    exits = torch.stack([s.exit_layer for s in steps])  # (S, B)
    assert len(exits.unique()) > 1
    assert metric(app, "Layer ratio", 1) == f"{exits.double().mean().item() / BLOCKS:.3f}"
    job = app.session_state["job"]
    assert (job.status.state, job.status.done) == ("done", STEPS)
    np.testing.assert_array_equal(job.early.images, deediff.datasets.to_uint8(steps[-1].x).numpy())
    tiles = shown_tiles(app, "live Early exit")
    assert [tile["strip"] for tile in tiles] == exits.T.tolist()
    assert [tile["caption"] for tile in tiles] == [f"exits at {m:.1f}" for m in exits.double().mean(dim=0).tolist()]
    app.switch_page("views/images/page.py").run()
    app.switch_page("views/live/page.py").run()
    assert metric(app, "Layer ratio", 1) == f"{exits.double().mean().item() / BLOCKS:.3f}"  # it survives page switches


def test_a_link_samples_what_a_colleague_saw(runs: Path) -> None:
    app = open_app("live")
    app.selectbox(key="live policy").set_value("patience")
    app.number_input(key="live steps").set_value(2)
    app.number_input(key="live images").set_value(3).run()
    app.slider(key="live tau").set_value(0.15)
    app.slider(key="live bounds").set_value((2, 9)).run()
    job = press(app).session_state["job"]
    assert job.settings.policy == "patience:0.15,min:2,max:9"
    theirs = open_app("live", **in_the_link(app)).session_state["job"]  # without a click
    theirs.join(60)
    assert theirs.settings == job.settings
    np.testing.assert_array_equal(theirs.early.images, job.early.images)


def test_a_plan_of_the_run_is_sampled_beside_the_full_network_at_its_timesteps(runs: Path) -> None:
    steps = (PlanStep(900, 0, "input"), PlanStep(500, 3), PlanStep(200), PlanStep(50, 0, "output:0"))
    write_plan(runs / "toy" / "plans" / "cheap.json", Plan(steps, BLOCKS, clip_x0=True))
    app = open_app("live")
    app.selectbox(key="live policy").set_value("plan").run()
    app = press(app)
    job = app.session_state["job"]
    assert job.timesteps == [900, 500, 200, 50]
    assert (job.early.exit_layers == [0, 3, BLOCKS, 0]).all()
    assert (job.full.exit_layers == BLOCKS).all()
    cost = model_cost(deediff.load(runs / "toy"))
    by_hand = cost.at_exit(with_uem=False)[3] + cost.full
    assert f" → {by_hand:.4g} (" in metric(app, "GFLOPs per image", 1)
    theirs = open_app("live", **in_the_link(app)).session_state["job"]
    theirs.join(60)
    np.testing.assert_array_equal(theirs.early.images, job.early.images)


@pytest.mark.parametrize(("policy", "ratio"), [("fixed", 6 / BLOCKS), ("never", 1.0)])
def test_live_sampling_with_static_policies(policy: str, ratio: float, runs: Path) -> None:
    app = open_app("live")
    app.selectbox(key="live policy").set_value(policy)
    app.number_input(key="live steps").set_value(2).run()
    app = press(app)
    assert metric(app, "Layer ratio", 1) == f"{ratio:.3f}"


@pytest.mark.parametrize("policy", sorted(set(POLICIES) - {"excess", "stopping", "oracle", "drift", "teacache"}))
def test_every_policy_has_controls_that_name_it(policy: str, runs: Path) -> None:
    app = open_app("live")
    app.toggle(key="live mode").set_value(False)
    app.number_input(key="live steps").set_value(2)
    app.selectbox(key="live policy").set_value(policy).run()
    app = press(app)
    assert not app.exception
    assert not app.error
    job = app.session_state["job"]
    assert job.settings.policy.partition(":")[0] == policy
    assert job.status.state == "done"


@pytest.mark.parametrize(
    ("policy", "command", "complaint"),
    [
        ("excess", "deediff calibrate ", "has no calibration yet"),
        ("stopping", "deediff calibrate ", "has no calibration yet"),
        ("oracle", "deediff sample ", "names no trace"),
        ("drift", "deediff calibrate ", "needs what a reused prediction loses"),
        ("teacache", "deediff calibrate ", "needs what a reused prediction loses"),
    ],
)
def test_a_policy_that_lacks_what_it_needs_shows_the_command(
    policy: str, command: str, complaint: str, runs: Path
) -> None:
    app = open_app("live")
    app.selectbox(key="live policy").set_value(policy).run()
    assert any(block.value.startswith(command) for block in app.code)
    app.button(key="sample").click().run()
    assert not app.exception
    assert complaint in sentences(app)


def test_a_calibrated_checkpoint_defaults_to_excess(runs: Path) -> None:
    """`excess` gives better images than plain thresholds, so it is the default where a calibration exists."""
    assert open_app("live").selectbox(key="live policy").value == "threshold"
    calibrate_run(runs)
    app = open_app("live")
    assert app.selectbox(key="live policy").value == "excess"
    app.number_input(key="live steps").set_value(2)
    assert press(app).session_state["job"].settings.policy == "excess:0.25"


def test_the_oracle_finds_its_recording(runs: Path) -> None:
    folder = runs / "toy" / "traces" / "recording"
    sample_trace(runs / "toy", folder, 3, "never", "ddim", 2, record="full", deviations=True)
    app = open_app("live")
    app.number_input(key="live steps").set_value(2)
    app.number_input(key="live images").set_value(3)
    app.selectbox(key="live policy").set_value("oracle").run()
    app = press(app)
    assert sentences(app) == ""
    assert app.session_state["job"].settings.policy.endswith(f"@{folder}")
    assert app.session_state["job"].status.state == "done"


def test_bounds_become_part_of_the_policy(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2)
    app.slider(key="live bounds").set_value((3, 5)).run()
    app = press(app)
    job = app.session_state["job"]
    assert job.settings.policy.endswith(",min:3,max:5")
    assert set(job.early.exit_layers.ravel()) <= {3, 4, 5}


def test_live_mode_samples_when_the_slider_is_released(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2).run()
    assert "job" not in app.session_state  # not before Sample was pressed once
    first = press(app).session_state["job"]
    app.slider(key="live tau").set_value(0.2).run()
    second = app.session_state["job"]
    assert second is not first
    assert second.settings.policy == "threshold:0.2"
    second.join(60)
    assert second.full.remembered  # the full network does not depend on the threshold
    np.testing.assert_array_equal(second.full.images, first.full.images)
    app.run()
    assert metric(app, "Seconds, measured") == f"{second.early.seconds:.2f}"  # not beside those of another moment
    assert app.session_state["job"] is second  # nothing changed, nothing is sampled
    app.toggle(key="live mode").set_value(False).run()
    app.slider(key="live tau").set_value(0.1).run()
    assert app.session_state["job"] is second
    third = press(app).session_state["job"]
    assert not third.full.remembered  # both are measured side by side


def test_live_mode_leaves_big_jobs_to_the_button(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2).run()
    first = press(app).session_state["job"]
    app.number_input(key="live steps").set_value(500).run()
    assert app.session_state["job"] is first


def test_another_seed_at_one_key(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(2).run()
    press(app)
    assert app.button(key="reseed").proto.shortcut.lower() == "n"
    app = press(app, "reseed")
    assert app.session_state["job"].settings.seed == 1
    assert app.number_input(key="live seed").value == 1


def test_cancel_stops_a_live_job(runs: Path) -> None:
    app = open_app("live")
    app.number_input(key="live steps").set_value(1000)
    app.number_input(key="live images").set_value(16).run()
    app.button(key="sample").click().run()
    assert app.button(key="sample").disabled
    app.button(key="cancel").click().run()
    app.session_state["job"].join(60)
    app.run()
    assert app.session_state["job"].status.state == "cancelled"
    assert "Cancelled at step" in sentences(app)
    assert not app.button(key="sample").disabled


def test_a_threshold_on_a_model_without_uems_is_refused_in_a_sentence(runs: Path) -> None:
    write_run(runs / "plain", exits=False)
    app = AppTest.from_file(str(APP / "explorer.py"), default_timeout=60)
    app.query_params["run"] = "plain"
    app.run()
    app.switch_page("views/live/page.py").run()
    assert app.selectbox(key="live policy").value == "never"
    app.selectbox(key="live policy").set_value("threshold").run()
    app.button(key="sample").click().run()
    assert not app.exception
    assert "needs UEMs, but this model has none" in sentences(app)


def test_a_corrupt_checkpoint_is_a_sentence(runs: Path) -> None:
    (runs / "toy" / "checkpoints" / "100.safetensors").write_bytes(b"nonsense")
    app = open_app("live")
    assert "not a readable checkpoint" in sentences(app)
