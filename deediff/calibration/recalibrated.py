"""A UEM whose answers pass a table fitted on held-out images, so that u means what it says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deediff.models.uncertainty import UEM


class RecalibratedUncertainty(UEM):
    """Another UEM's u through one non-decreasing map per layer and calibrated timestep.

    A map is piecewise linear on K knots spread evenly over the range of u that it was fitted on, and
    constant outside. Between two calibrated timesteps the answers of their maps are interpolated. The
    maps belong to the calibration, not to the weights: they are in no state_dict, nor in `config`.
    """

    def __init__(
        self,
        inner: UEM,
        position: Tensor,  # (T,) where each timestep lies among the calibrated ones, 0 … T'−1
        low: Tensor,  # (T', N) the smallest u that a map was fitted on …
        high: Tensor,  # (T', N) … and the largest
        maps: Tensor,  # (T', N, K) what u becomes at each knot
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
        return torch.lerp(self._through(left, layer, u), self._through(left + 1, layer, u), position - left)

    def map(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """The other UEM's, not corrected: the tables know one number per image only."""
        return self.inner.map(layer, state, t)

    def _through(self, row: Tensor, layer: int, u: Tensor) -> Tensor:
        """u (B,) through the maps of calibrated timesteps number `row` (B,) → (B,)."""
        low, high, knots = self.low[row, layer], self.high[row, layer], self.maps[row, layer]  # (B,), (B,), (B, K)
        last = knots.shape[1] - 1
        position = ((u - low) / (high - low).clamp(min=1e-12) * last).clamp(0, last)
        below = position.long().clamp(max=last - 1)[:, None]  # (B, 1)
        values = knots.gather(1, torch.cat([below, below + 1], dim=1))
        return torch.lerp(values[:, 0], values[:, 1], position - below[:, 0])

    def config(self) -> dict[str, Any]:
        return self.inner.config()
