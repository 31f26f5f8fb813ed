"""The measured errors of every exit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import deediff
from deediff.calibration.file import calibration_file
from deediff.calibration.measure import HeldOutImages, calibrate_model
from deediff.calibration.recalibrated import recalibrate
from deediff.calibration.summary import summarise
from deediff.datasets import to_model_range
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.sampling import sample
from tests.calibration.fixtures import HELD_OUT, IMAGES, MODEL, TIMESTEPS
from tests.conftest import TINY, make_model, make_run


@pytest.mark.parametrize("learnt", ["noise", "full"])
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_the_error_is_that_of_the_predicted_quantity(prediction: str, learnt: str) -> None:
    model = EarlyExitModel(MODEL.backbone, MODEL.uem, MODEL.heads, prediction)
    model.exit_target = learnt
    found = calibrate_model(model, Schedule(), HELD_OUT, [100, 600], batch_size=5)
    x0, eps = to_model_range(IMAGES), sample_noise(0, range(12), 0, model.image_shape)
    a = float(Schedule().alphas_bar[600])
    target = {"epsilon": eps, "x0": x0, "v": a**0.5 * eps - (1 - a) ** 0.5 * x0}[prediction]
    predictions, u = model.all_exits(a**0.5 * x0 + (1 - a) ** 0.5 * eps, torch.full((12,), 600))
    squares = (predictions - target).square().mean(dim=(2, 3, 4)).T
    torch.testing.assert_close(torch.from_numpy(found.squared_error[1]), squares, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(found.u[1]), u.T, atol=1e-4, rtol=1e-4)
    target = predictions[-1] if learnt == "full" else target
    error = (predictions[:-1] - target).abs().tanh().mean(dim=(2, 3, 4)).T
    torch.testing.assert_close(torch.from_numpy(found.error[1]), error, atol=1e-4, rtol=1e-4)


def test_layers_without_an_exit_are_excluded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp", "layers": [2, 5, 9]}).eval().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.04)
    model = deediff.load(make_run(tmp_path / "run", model))
    found = calibrate_model(model, Schedule(), HELD_OUT, TIMESTEPS)
    assert found.layers == [2, 5, 9]
    assert [row["layer"] for row in summarise(found)["layers"]] == [2, 5, 9, 13]
    replace(found, info={"checkpoint_sha256": model.origin[1]}).save(calibration_file(model.origin[0]))  # type: ignore[index]
    recalibrate(model)
    for spec in ("excess:0.1", "stopping:0.002"):
        exits = torch.cat([step.exit_layer for step in sample(model, num_samples=4, policy=spec, steps=5)])
        assert set(exits.tolist()) <= {2, 5, 9, 13}
        assert (exits < 13).any()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": EarlyExitModel(UViT(TINY))}, "has no exits to calibrate"),
        ({"held_out": HeldOutImages(IMAGES[:3])}, "3 images are too few"),
        ({"timesteps": [5]}, "1 timesteps are too few"),
        ({"model": make_model(config=replace(TINY, num_classes=3))}, "needs the images' labels"),
    ],
)
def test_bad_input_is_refused(change: dict[str, object], sentence: str) -> None:
    arguments = {"model": MODEL, "schedule": Schedule(), "held_out": HELD_OUT, "timesteps": TIMESTEPS}
    with pytest.raises(UserError, match=sentence):
        calibrate_model(**{**arguments, **change})  # type: ignore[arg-type]
