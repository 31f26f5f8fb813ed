"""`deediff calibrate`, and sampling with its result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import deediff
from deediff.cli import main
from deediff.models import EarlyExitModel


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
