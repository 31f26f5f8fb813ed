"""A threshold relative to the deepest UEM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.calibration.file import Calibration
from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.calibrated.table import CalibratedThresholds, split_file


class Excess(CalibratedThresholds):
    """Exit when u_i ≤ (1+δ) × the calibrated mean u of the deepest UEM at that timestep.

    In the late steps u is far above zero even at the deepest layer, so an absolute threshold says little there;
    the ratio to the deepest layer measures the gain that further layers can still bring.
    """

    def __init__(self, delta: float, file: Path | None = None):
        if not delta > -1:
            raise UserError(f"δ is {delta}, expected a number above −1 (exit when u ≤ (1+δ) × the deepest layer's)")
        self.delta = delta
        super().__init__(f"excess:{delta!r}", file)

    def _thresholds(
        self, calibration: Calibration, model: EarlyExitModel, solver: Solver, guidance: float | None
    ) -> NDArray[np.float32]:
        deepest = calibration.u[..., calibration.layers[-1:]].mean(axis=1)  # (T', 1)
        return ((1 + self.delta) * calibration.at(deepest, solver.timesteps)).astype(np.float32)


def read_excess(argument: str) -> Excess:
    """'δ' or 'δ@CALIBRATION' → policy. Raises UserError for a δ out of range, ValueError when it is not a number."""
    return Excess(*split_file(argument))
