"""The recalibrated model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deediff.calibration.recalibrated import calibration_of, recalibrate
from deediff.cost.components import model_cost
from deediff.datasets import to_model_range
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from tests.calibration.fixtures import IMAGES, MODEL, TIMESTEPS


@pytest.mark.parametrize("timestep", [0, 250, 999, 613])
def test_a_recalibrated_model_gives_the_map_of_the_plain_u(loaded: EarlyExitModel, timestep: int) -> None:
    x, t = sample_noise(5, range(8), 0, loaded.image_shape), torch.full((8,), timestep)
    plain = loaded.all_exits(x, t)[1].numpy()
    calibration = recalibrate(loaded)
    mapped = loaded.all_exits(x, t)[1].numpy()
    at = calibration.position[timestep]
    left = min(int(at), len(TIMESTEPS) - 2)
    for layer in range(13):
        both = [
            np.interp(
                plain[layer],
                np.linspace(calibration.low[k, layer], calibration.high[k, layer], calibration.maps.shape[2]),
                calibration.maps[k, layer],
            )
            for k in (left, left + 1)
        ]
        expected = both[0] + (at - left) * (both[1] - both[0])
        np.testing.assert_allclose(mapped[layer], expected, atol=1e-5)
    assert model_cost(loaded) == model_cost(MODEL)


def test_the_calibration_of_a_recalibrated_model_is_that_of_its_own_u(loaded: EarlyExitModel) -> None:
    plain = calibration_of(loaded)
    recalibrate(loaded)
    mapped = calibration_of(loaded).u
    mine = plain.fitted
    np.testing.assert_allclose(mapped[:, mine].mean(axis=1), plain.error[:, mine].mean(axis=1), atol=0.02)
    x = Schedule().add_noise(
        to_model_range(IMAGES), torch.full((12,), 500), sample_noise(0, range(12), 0, loaded.image_shape)
    )
    u = loaded.all_exits(x, torch.full((12,), 500))[1]
    np.testing.assert_allclose(mapped[2], u.T, atol=1e-4)
