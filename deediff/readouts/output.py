"""The sample's own earlier predictions of ε, reused or extrapolated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deediff.readouts.base import Readout, ReadoutState
from deediff.readouts.extrapolation import extrapolation_weights
from deediff.readouts.memory import check_order, weighted


class Output(Readout):
    """The polynomial of order o in the log-SNR through the last o + 1 predictions (Liu et al. 2025, TaylorSeer).

    Order 0 repeats the last one. Under DDIM with η = 0 that equals one longer step from the timestep before.
    """

    predicts = False

    def __init__(self, order: int):
        self.order, self.spec, self.needs_earlier = check_order("output", order), f"output:{order}", order + 1

    def epsilon(self, state: ReadoutState) -> Tensor:
        recent = state.earlier[-self.needs_earlier :]
        points = np.stack([np.broadcast_to(np.asarray(at, np.float64), len(state.x)) for at, _ in recent])
        weights = torch.from_numpy(extrapolation_weights(points, state.log_snr, self.order)).to(state.x)
        return sum(
            (weighted(eps, weight) for (_, eps), weight in zip(recent, weights, strict=True)), torch.zeros_like(state.x)
        )
