"""A small model, images and their calibration, for the tests of calibration and of the policies that use it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import deediff
from deediff.calibration.file import Calibration, calibration_file
from deediff.calibration.measure import HeldOutImages, calibrate_model
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from tests.conftest import make_model, make_run

MODEL = make_model()
IMAGES = torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
HELD_OUT = HeldOutImages(IMAGES)
TIMESTEPS = [0, 250, 500, 750, 999]


@pytest.fixture(scope="module")
def measured() -> Calibration:
    return calibrate_model(MODEL, Schedule(), HELD_OUT, TIMESTEPS)


@pytest.fixture
def loaded(tmp_path: Path, measured: Calibration) -> EarlyExitModel:
    """A checkpoint with its calibration beside it, loaded."""
    model = deediff.load(make_run(tmp_path / "run", MODEL))
    assert model.origin is not None
    replace(measured, info={"checkpoint_sha256": model.origin[1]}).save(calibration_file(model.origin[0]))
    return model
