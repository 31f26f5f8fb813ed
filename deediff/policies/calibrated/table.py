"""Thresholds from a table over steps and layers that a calibration determines."""

from __future__ import annotations

import copy
from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.calibration.file import Calibration
from deediff.calibration.recalibrated import calibration_of
from deediff.diffusion.solvers import Solver
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState


class CalibratedThresholds(ExitPolicy):
    """Exit when u is at most the table's value for the step, or for step and layer.

    The table depends on the model and the solver; `prepared` computes it.
    """

    needs_uncertainty = True
    table: NDArray[np.float32] | None = None  # (S, 1) or (S, N)

    def __init__(self, spec: str, file: Path | None):  # file: a calibration other than the one beside the checkpoint
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


def split_file(argument: str) -> tuple[float, Path | None]:
    """'NUMBER' or 'NUMBER@CALIBRATION' → number, file. Raises ValueError when it is not a number."""
    number, _, file = argument.partition("@")
    return float(number), Path(file) if file else None
