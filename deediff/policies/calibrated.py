"""Policies that know what u is worth at each timestep, from the calibration of the checkpoint."""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.calibration.file import Calibration, calibration_of
from deediff.cost.components import model_cost
from deediff.diffusion.prediction import epsilon_scale
from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState
from deediff.policies.optimal_stopping import Stopping, x0_weights


class Calibrated(ExitPolicy):
    """Exit when u is at most what a table says for the step, or for step and layer.

    The table depends on the model and the solver: `prepared` makes it.
    """

    needs_uncertainty = True
    table: NDArray[np.float32] | None = None  # (S, 1) or (S, N)

    def __init__(self, spec: str, file: Path | None):  # file: a calibration elsewhere than beside the checkpoint
        self.spec, self.file = spec if file is None else f"{spec}@{file}", file
        self._solver: Solver | None = None

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        if self._solver is solver:
            return self
        calibration = calibration_of(model, self.file)
        ready = copy.copy(self)
        ready.table, ready._solver = self._thresholds(calibration, model, solver, guidance), solver
        ready.content = {"calibration_sha256": calibration.sha256}
        return ready

    @abstractmethod
    def _thresholds(
        self, calibration: Calibration, model: EarlyExitModel, solver: Solver, guidance: float | None
    ) -> NDArray[np.float32]:
        """(S, 1) or (S, N)."""

    def should_exit(self, state: LayerState) -> Tensor:
        assert state.uncertainty is not None
        assert self.table is not None, "call prepared() first"
        row = self.table[state.step]
        return state.uncertainty <= float(row[state.layer if len(row) > 1 else 0])


class Excess(Calibrated):
    """Exit when u_i ≤ (1+δ) × the calibrated mean of the deepest UEM's u at that timestep.

    An absolute threshold compares u with zero, which in the late steps not even the deepest layer comes near:
    what matters is what further layers would still gain.
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


class OptimalStopping(Calibrated):
    """Exit where the calibration expects going on to gain less than it costs, at the price that meets a budget.

    GFLOPs are per image and step, UEMs included, both evaluations under guidance: a pair leaves once both are
    certain, later than the calibration knows, and so spends somewhat more. `stopping.py` has the derivation.
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
        weights = np.square(x0_weights(solver) * scale)
        error = calibration.at(calibration.squared_error, solver.timesteps) * weights[:, None, None]
        cost = model_cost(model).times(1 if guidance is None else 2).at_exit(with_uem=True)
        stopping = Stopping(calibration.at(calibration.u, solver.timesteps), error, cost)
        return stopping.within(self.gflops)[0]


def read_excess(argument: str) -> Excess:
    """'δ' or 'δ@CALIBRATION' → policy. Raises UserError for a δ out of range, ValueError when it is no number."""
    number, file = _split(argument)
    return Excess(number, file)


def read_stopping(argument: str) -> OptimalStopping:
    """'GFLOPs' or 'GFLOPs@CALIBRATION' → policy. Raises UserError and ValueError as `read_excess`."""
    number, file = _split(argument)
    return OptimalStopping(number, file)


def _split(argument: str) -> tuple[float, Path | None]:
    number, _, file = argument.partition("@")
    return float(number), Path(file) if file else None
