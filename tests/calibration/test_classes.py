"""Calibration of class-conditional models: every image is evaluated with its own label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deediff
from deediff.calibration.checkpoint import CalibrationSettings, calibrate_checkpoint
from deediff.calibration.file import Calibration
from deediff.calibration.measure import HeldOutImages, calibrate_model
from deediff.cli import main
from deediff.datasets import load_images, load_labels
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies import make_policy
from tests.conftest import TINY, make_model, make_run, sample_trace

CLASSES = 3


def conditional(null_label: bool) -> EarlyExitModel:
    """Classes 0, 1, 2 and, with `null_label`, a fourth for "no class"."""
    model = make_model(config=replace(TINY, num_classes=CLASSES + null_label))
    with torch.no_grad():
        model.backbone.label_emb.weight.mul_(20)  # so that a wrong label changes every prediction
    model.null_label = null_label
    return model


def fill(folder: Path, *names: str) -> Path:
    """Four different images in each sub-folder."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def expected(model: EarlyExitModel, folder: Path, timesteps: list[int], labels: torch.Tensor) -> Calibration:
    images = load_images(str(folder), 16, 3)
    held_out = HeldOutImages(images[torch.arange(len(images))], labels=labels)
    return calibrate_model(model, Schedule(), held_out, timesteps)


@pytest.mark.parametrize("null_label", [False, True])
def test_each_image_is_evaluated_with_its_own_label(tmp_path: Path, null_label: bool) -> None:
    folder, run = fill(tmp_path / "images", "a", "b", "c"), make_run(tmp_path / "run", conditional(null_label))
    file, summary = calibrate_checkpoint(run, CalibrationSettings(images=12, bins=3, dataset=str(folder)), "cpu")
    found, model = Calibration.load(file), deediff.load(run)
    right = expected(model, folder, found.timesteps.tolist(), load_labels(str(folder)))
    np.testing.assert_array_equal(found.u, right.u)
    np.testing.assert_array_equal(found.squared_error, right.squared_error)
    wrong = expected(model, folder, found.timesteps.tolist(), load_labels(str(folder)).roll(4))
    assert (found.u != wrong.u).mean() > 0.9  # another label changes every u
    assert summary["label_source"] == "the images' own"


def test_a_calibration_does_not_depend_on_how_its_labels_are_batched(tmp_path: Path) -> None:
    folder, model = fill(tmp_path / "images", "a", "b", "c"), conditional(False)
    images, labels = load_images(str(folder), 16, 3)[torch.arange(12)], load_labels(str(folder))
    held_out = HeldOutImages(images, labels=labels)
    whole = calibrate_model(model, Schedule(), held_out, [0, 500])
    parts = calibrate_model(model, Schedule(), held_out, [0, 500], batch_size=5)
    np.testing.assert_allclose(whole.u, parts.u, atol=1e-5)


def test_images_without_classes_get_the_label_for_no_class(tmp_path: Path) -> None:
    folder = fill(tmp_path / "images", ".")
    run = make_run(tmp_path / "run", conditional(null_label=True))
    file, summary = calibrate_checkpoint(run, CalibrationSettings(images=4, bins=3, dataset=str(folder)), "cpu")
    found = Calibration.load(file)
    right = expected(deediff.load(run), folder, found.timesteps.tolist(), torch.full((4,), CLASSES))
    np.testing.assert_array_equal(found.u, right.u)
    assert summary["label_source"].startswith("none")
    without = make_run(tmp_path / "without", conditional(null_label=False))
    with pytest.raises(UserError, match="has no class"):
        calibrate_checkpoint(without, CalibrationSettings(images=4, bins=3, dataset=str(folder)), "cpu")


def test_images_of_other_classes_are_refused(tmp_path: Path) -> None:
    folder, run = fill(tmp_path / "images", "a", "b"), make_run(tmp_path / "run", conditional(null_label=True))
    with pytest.raises(UserError, match="has 2 classes and the model 3: name its own data with --dataset"):
        calibrate_checkpoint(run, CalibrationSettings(images=4, bins=3, dataset=str(folder)), "cpu")


def test_under_guidance_the_budget_of_stopping_covers_both_evaluations(tmp_path: Path) -> None:
    folder, run = fill(tmp_path / "images", "a", "b", "c"), make_run(tmp_path / "run", conditional(null_label=True))
    calibrate_checkpoint(run, CalibrationSettings(images=12, bins=3, dataset=str(folder)), "cpu")
    model, solver = deediff.load(run), make_solver("ddim", Schedule(), 4)
    once = make_policy("stopping:0.003").prepared(model, solver)
    twice = make_policy("stopping:0.006,min:1").prepared(model, solver, guidance=2.0)
    np.testing.assert_array_equal(twice.inner.table, once.table)  # type: ignore[attr-defined]
    assert 0 < np.isfinite(once.table).mean() < 1  # type: ignore[attr-defined]
    written = sample_trace(run, tmp_path / "trace", 4, "stopping:0.006", steps=4, guidance=2.0)
    same = [step.exit_layer for step in deediff.sample(model, num_samples=4, policy=once, solver=solver, guidance=2.0)]
    assert np.array_equal(deediff.read_trace(written).exit_layers().T, torch.stack(same))


@pytest.mark.parametrize("guidance", [[], ["--guidance", "2"]])
def test_everything_that_needs_a_calibration_samples_classes_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], guidance: list[str]
) -> None:
    folder, run = fill(tmp_path / "images", "a", "b", "c"), make_run(tmp_path / "run", conditional(null_label=True))
    common = ["--images", "12", "--bins", "3", "--device", "cpu"]
    assert main(["calibrate", str(run), "--dataset", str(folder), *common]) == 0
    for policy in (["excess:0.05"], ["stopping:0.002"], ["threshold:0.5", "--recalibrated"]):
        out = run / "traces" / policy[0].partition(":")[0]
        size = ["--steps", "3", "--num-samples", "8", "--classes", "0", "2", "--device", "cpu"]
        assert main(["sample", str(run), "--policy", *policy, *guidance, *size, "--out", str(out)]) == 0
        found = json.loads((out / "trace.json").read_text())
        assert found["complete"]
        assert found["layer_ratio"] < 1 or policy[-1] == "--recalibrated"  # real errors of random weights are large
