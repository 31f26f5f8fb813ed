"""Statistics of u against the measured error."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from deediff.calibration.measure import calibrate_model
from deediff.calibration.statistics import expected_calibration_error, rank_correlation, reliability
from deediff.calibration.summary import summarise
from deediff.datasets import to_model_range
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import to_epsilon
from deediff.diffusion.schedule import Schedule
from deediff.models import UEM, EarlyExitModel
from tests.calibration.fixtures import HELD_OUT, IMAGES, MODEL, TIMESTEPS
from tests.conftest import make_model


class ExactUncertainty(UEM):
    """The true mean tanh|error| of the head, for known images and noise."""

    def __init__(self, model: EarlyExitModel, noise: Tensor):
        super().__init__()
        self.answer, self.noise, self.layers = model.read_out, noise, tuple(range(model.num_blocks))

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        return (self.answer(layer, state, t) - self.noise).abs().tanh().mean(dim=(1, 2, 3))

    def config(self) -> dict[str, object]:
        return {}


def test_an_exact_uem_is_calibrated_and_ranks_perfectly() -> None:
    model = make_model()
    model.uem = ExactUncertainty(model, sample_noise(0, range(12), 0, model.image_shape))
    found = calibrate_model(model, Schedule(), HELD_OUT, TIMESTEPS, seed=0)
    np.testing.assert_allclose(expected_calibration_error(found.u, found.error), 0, atol=1e-6)
    np.testing.assert_allclose(rank_correlation(found.u, found.error), 1)
    curve = reliability(found)
    np.testing.assert_allclose(curve["predicted"], curve["actual"], atol=1e-6)
    assert curve.groupby(["timestep", "layer"])["count"].sum().eq(12).all()


def test_the_ece_is_the_gap_of_a_constant_error_and_the_rank_depends_on_the_order_only() -> None:
    u = np.random.default_rng(0).random((2, 40, 3), dtype=np.float32)
    np.testing.assert_allclose(expected_calibration_error(u, u + 0.1), 0.1, rtol=1e-5)
    np.testing.assert_allclose(rank_correlation(u, u**3), 1)
    np.testing.assert_allclose(rank_correlation(u, -u), -1)
    assert np.isnan(rank_correlation(u, np.ones_like(u))).all()


@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
def test_the_mse_is_that_of_the_noise_whatever_is_predicted(kind: str) -> None:
    schedule, model = Schedule(), copy.deepcopy(MODEL)
    model.prediction = kind
    table = summarise(calibrate_model(model, schedule, HELD_OUT, TIMESTEPS))["tables"]["mse"]
    x0, noise = to_model_range(IMAGES), sample_noise(0, range(len(IMAGES)), 0, model.image_shape)
    for k, timestep in enumerate(TIMESTEPS):
        t = torch.full((len(x0),), timestep)
        x_t = schedule.add_noise(x0, t, noise)
        with torch.inference_mode():
            answer = to_epsilon(kind, model.backbone(x_t, t), x_t, float(schedule.alphas_bar[timestep]))
        assert table[k][-1] == pytest.approx(float((answer - noise).square().mean()), rel=2e-3)
