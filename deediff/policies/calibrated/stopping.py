"""Thresholds that meet a budget of GFLOPs, by optimal stopping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.calibration.file import Calibration
from deediff.cost.components import model_cost
from deediff.diffusion.prediction import epsilon_scale
from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.calibrated.optimal_stopping import Stopping
from deediff.policies.calibrated.table import CalibratedThresholds, split_file


class OptimalStopping(CalibratedThresholds):
    """Exit where, by the calibration, further layers are expected to gain less than they cost.

    The price of a GFLOP is the one that meets the budget; `optimal_stopping` has the derivation. GFLOPs are per
    image and step, UEMs and both evaluations under guidance included. Under guidance a pair exits only when both
    halves would, so it exits later than the calibration predicts and costs somewhat more.
    """

    def __init__(self, gflops: float, file: Path | None = None):
        if not gflops > 0:
            raise UserError(f"the budget is {gflops} GFLOPs per image and step, expected a number above 0")
        self.gflops = gflops
        super().__init__(f"stopping:{gflops!r}", file)

    def _thresholds(
        self, calibration: Calibration, model: EarlyExitModel, solver: Solver, guidance: float | None
    ) -> NDArray[np.float32]:
        scale = [epsilon_scale(model.prediction, solver.alpha_bar(s)) for s in range(len(solver.timesteps))]
        error = calibration.at(calibration.squared_error, solver.timesteps) * np.square(scale)[:, None, None]
        cost = model_cost(model).times(1 if guidance is None else 2).at_exit(with_uem=True)
        stopping = Stopping(calibration.at(calibration.u, solver.timesteps), error, cost)
        return stopping.within(self.gflops)[0]


def read_stopping(argument: str) -> OptimalStopping:
    """'GFLOPs' or 'GFLOPs@CALIBRATION' → policy. Raises UserError and ValueError as `read_excess`."""
    return OptimalStopping(*split_file(argument))
