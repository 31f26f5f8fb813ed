"""The recalibrated model: u corrected by maps fitted on held-out images, so that it matches the mean error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deediff.calibration.file import Calibration, calibration_file
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.models.uems import UEM


class RecalibratedUncertainty(UEM):
    """The u of another UEM, corrected by one non-decreasing map per layer and calibrated timestep.

    A map is piecewise linear on K knots spread evenly over the range of u that it was fitted on, and
    constant outside. Between two calibrated timesteps the outputs of their maps are interpolated. The
    maps belong to the calibration, not to the weights: neither `state_dict` nor `config` has them.
    """

    def __init__(
        self,
        inner: UEM,
        position: Tensor,  # (T,) position of each timestep among the calibrated ones, 0 … T'−1
        low: Tensor,  # (T', N) smallest u that each map was fitted on
        high: Tensor,  # (T', N) largest u that each map was fitted on
        maps: Tensor,  # (T', N, K) corrected u at each knot
    ):
        super().__init__()
        self.inner, self.layers, self.by_token = inner, inner.layers, inner.by_token
        for name, value in (("position", position), ("low", low), ("high", high), ("maps", maps)):
            self.register_buffer(name, value, persistent=False)

    position: Tensor
    low: Tensor
    high: Tensor
    maps: Tensor

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        u = self.inner(layer, state, t)
        position = self.position[t]  # (B,)
        left = position.long().clamp(max=len(self.maps) - 2)
        return torch.lerp(self._corrected(left, layer, u), self._corrected(left + 1, layer, u), position - left)

    def map(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """The map of the inner UEM, not corrected: the correction is defined for one u per image."""
        return self.inner.map(layer, state, t)

    def _corrected(self, row: Tensor, layer: int, u: Tensor) -> Tensor:
        """u (B,), corrected by the maps of the calibrated timesteps of index `row` (B,) → (B,)."""
        low, high, knots = self.low[row, layer], self.high[row, layer], self.maps[row, layer]  # (B,), (B,), (B, K)
        last = knots.shape[1] - 1
        position = ((u - low) / (high - low).clamp(min=1e-12) * last).clamp(0, last)
        below = position.long().clamp(max=last - 1)[:, None]  # (B, 1)
        values = knots.gather(1, torch.cat([below, below + 1], dim=1))
        return torch.lerp(values[:, 0], values[:, 1], position - below[:, 0])

    def config(self) -> dict[str, Any]:
        return self.inner.config()


def calibration_of(model: EarlyExitModel, file: Path | None = None) -> Calibration:
    """The calibration of a loaded model, by default the one beside its checkpoint.

    With corrected u if the model is recalibrated. Raises UserError when there is none, or it is of other weights.
    """
    if model.origin is None:
        raise UserError("this model was not read from a checkpoint, so it has no calibration: use deediff.load")
    checkpoint, sha256 = model.origin
    if file is None:
        file = calibration_file(checkpoint)
        if not file.exists():
            raise UserError(f"{checkpoint} has no calibration yet: run 'deediff calibrate {checkpoint}' first")
    calibration = Calibration.load(file)
    if calibration.info.get("checkpoint_sha256") != sha256:
        raise UserError(f"{file} is the calibration of other weights: run 'deediff calibrate {checkpoint}' again")
    if calibration.u.shape[2] != model.num_blocks:
        raise UserError(
            f"{file} is of a model of {calibration.u.shape[2]} blocks, this one has {model.num_blocks}: run 'deediff "
            f"calibrate {checkpoint}' again"
        )
    return calibration.recalibrated() if isinstance(model.uem, RecalibratedUncertainty) else calibration


def recalibrate(model: EarlyExitModel) -> Calibration:
    """Correct the model's u with the maps of the calibration beside its checkpoint, in place; returns the calibration.

    Raises UserError when there is none, or the model has no UEMs.
    """
    if model.uem is None:
        raise UserError("this model has no UEMs, so there is no u to recalibrate: train its exits first")
    calibration = calibration_of(model)
    tables = [torch.from_numpy(getattr(calibration, name)) for name in ("position", "low", "high", "maps")]
    model.uem = RecalibratedUncertainty(model.uem, *tables).to(next(model.parameters()).device).eval()
    return calibration
