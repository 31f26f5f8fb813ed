"""`deediff calibrate`, and sampling with its result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deediff
from deediff.cli import main
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from tests.conftest import make_model, make_run


def result(capsys: pytest.CaptureFixture[str], *args: object) -> dict:
    assert main([*map(str, args), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_calibrate_then_sample_with_it(run: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(run)]) == 2
    assert "does not record its training images" in capsys.readouterr().err
    found = result(capsys, "calibrate", run, "--dataset", image_folder, "--images", 16, "--bins", 5, "--device", "cpu")
    assert (found["images"], found["timesteps"]) == (16, 5)
    assert [row["layer"] for row in found["layers"]] == list(range(14))
    first, last = found["layers"][0], found["layers"][13]
    assert first["ece_recalibrated"] < first["ece"]
    assert last["ece"] is None
    assert last["mse_late"] > 0
    assert (found["gaussian_images"], found["gaussian_axes"]) == (40, 256)
    summary = json.loads((run / "checkpoints" / "7.calibration.json").read_text())
    weights = json.loads((run / "checkpoints" / "7.json").read_text())["sha256"]
    assert summary["checkpoint_sha256"] == weights
    assert "no test split" in summary["split"]
    assert len(summary["tables"]["mse"]) == 5

    common = ("sample", run, "--steps", 4, "--num-samples", 6, "--batch-size", 3)
    for policy in ("excess:0.05", "stopping:0.002"):
        out = run / "traces" / policy.partition(":")[0]
        sampled = result(capsys, *common, "--policy", policy, "--out", out)
        assert sampled["policy"] == policy
        assert 0 < sampled["layer_ratio"] < 1
        meta = json.loads((out / "trace.json").read_text())
        assert meta["policy_content"] == {"calibration_sha256": meta["policy_content"]["calibration_sha256"]}
    out = run / "traces" / "threshold"
    result(capsys, *common, "--policy", "threshold:0.5", "--recalibrated", "--out", out)
    meta = json.loads((out / "trace.json").read_text())
    assert len(meta["recalibration_sha256"]) == 64
    assert main([*map(str, common), "--policy", "threshold:0.5", "--out", str(out)]) == 2
    assert "holds another trace (different: recalibration_sha256)" in capsys.readouterr().err
    compared = result(capsys, "compare", out, run / "traces" / "excess")
    assert [row["policy"] for row in compared["traces"]] == ["threshold:0.5, recalibrated u", "excess:0.05"]
    assert isinstance(deediff.load(run, recalibrated=True), EarlyExitModel)


@pytest.mark.parametrize("source", ["data", "samples"])
def test_a_model_without_exits_gets_a_gaussian_that_a_plan_uses(
    source: str, tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = make_model()
    bare.uem = bare.heads = None
    run = make_run(tmp_path / "bare", bare)
    options = ("--gaussian", source, "--gaussian-images", 8, "--rank", 4, "--dataset", image_folder)
    found = result(capsys, "calibrate", run, *options)
    assert (found["gaussian_images"], found["gaussian_axes"]) == (8, 4)
    assert 0 < found["gaussian_variance_kept"] < 1
    assert "layers" not in found
    plan = Plan((PlanStep(999, 0, "gaussian"), PlanStep(100)), num_blocks=13)
    assert [int(step.exit_layer[0]) for step in deediff.sample(deediff.load(run), plan=plan, num_samples=2)] == [0, 13]
    assert main(["calibrate", str(run), "--gaussian", "none"]) == 2
    assert "has no exits to calibrate" in capsys.readouterr().err
