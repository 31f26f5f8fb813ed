"""The file of a calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import deediff
from deediff.calibration.file import Calibration, calibration_file
from deediff.calibration.measure import calibrate_model
from deediff.calibration.recalibrated import calibration_of
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.sampling import sample
from tests.calibration.fixtures import HELD_OUT, MODEL, TIMESTEPS
from tests.conftest import make_model, make_run


def test_values_between_calibrated_timesteps_lie_between(measured: Calibration) -> None:
    np.testing.assert_allclose(measured.at(measured.u, TIMESTEPS), measured.u)
    between = measured.at(measured.u, [100])[0]
    low, high = np.minimum(measured.u[0], measured.u[1]), np.maximum(measured.u[0], measured.u[1])
    assert ((between >= low - 1e-6) & (between <= high + 1e-6)).all()


def test_a_calibration_survives_its_file_and_a_damaged_one_is_refused(loaded: EarlyExitModel) -> None:
    assert loaded.origin is not None
    file = calibration_file(loaded.origin[0])
    found = Calibration.load(file)
    np.testing.assert_array_equal(found.u, calibrate_model(MODEL, Schedule(), HELD_OUT, TIMESTEPS).u)
    assert len(found.sha256) == 64
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match="is not a readable calibration"):
        calibration_of(loaded)


def test_a_calibration_of_other_weights_is_refused(loaded: EarlyExitModel, tmp_path: Path) -> None:
    assert loaded.origin is not None
    other = deediff.load(make_run(tmp_path / "other", make_model(seed=9)))
    for policy in ("excess:0.1", "stopping:0.1", "excess:0.1,max:4"):
        with pytest.raises(UserError, match="has no calibration yet: run 'deediff calibrate"):
            sample(other, policy=policy)
    theirs = calibration_file(loaded.origin[0])
    for policy in (f"excess:0.1@{theirs}", f"stopping:0.1@{theirs}"):
        with pytest.raises(UserError, match="is the calibration of other weights: run 'deediff calibrate"):
            sample(other, policy=policy)
    with pytest.raises(UserError, match=r"none\.npz does not exist"):
        sample(loaded, policy="excess:0.1@none.npz")
    with pytest.raises(UserError, match="was not read from a checkpoint"):
        sample(MODEL, policy="excess:0.1")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("u", lambda u: u[:, :, :-1], "error has the shape"),
        ("low", lambda low: low[:1], "low has the shape"),
        ("maps", lambda maps: maps[0], "other dimensions"),
        ("timesteps", lambda timesteps: timesteps[::-1], "timesteps are not ascending numbers of 0 … 999"),
        ("timesteps", lambda timesteps: timesteps + 1000, "timesteps are not ascending numbers of 0 … 999"),
        ("position", lambda position: position - 1, "position is not within 0 …"),
    ],
)
def test_a_calibration_whose_arrays_do_not_fit_is_refused(
    name: str, change: Callable[[np.ndarray], np.ndarray], reason: str, measured: Calibration, tmp_path: Path
) -> None:
    file = tmp_path / "7.calibration.npz"
    replace(measured, **{name: change(getattr(measured, name))}).save(file)
    with pytest.raises(UserError, match=f"is not a readable calibration .*{reason}"):
        Calibration.load(file)


def test_a_calibration_of_another_depth_is_refused(loaded: EarlyExitModel) -> None:
    assert loaded.origin is not None
    file = calibration_file(loaded.origin[0])
    found = Calibration.load(file)
    u, error, squared = (values[:, :, 1:] for values in (found.u, found.error, found.squared_error))
    low, high, maps = (values[:, 1:] for values in (found.low, found.high, found.maps))
    replace(found, u=u, error=error, squared_error=squared, low=low, high=high, maps=maps).save(file)
    with pytest.raises(UserError, match="is of a model of 12 blocks, this one has 13"):
        calibration_of(loaded)
