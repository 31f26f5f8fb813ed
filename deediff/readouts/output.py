"""The sample's own earlier predictions of ε, reused or extrapolated."""

from __future__ import annotations

import torch
from torch import Tensor

from deediff.errors import UserError
from deediff.readouts.base import Readout, ReadoutState


class Output(Readout):
    """The polynomial of order o in the log-SNR through the last o + 1 predictions (Liu et al. 2025, TaylorSeer).

    Order 0 repeats the last one. Under DDIM with η = 0 that equals one longer step from the timestep before.
    """

    predicts = False

    def __init__(self, order: int):
        if order not in (0, 1, 2):
            raise UserError(f"readout output:{order} has order {order}, expected 0, 1 or 2")
        self.order, self.spec, self.needs_earlier = order, f"output:{order}", order + 1

    def epsilon(self, state: ReadoutState) -> Tensor:
        points = state.earlier[-self.needs_earlier :]
        result = torch.zeros_like(state.x)
        for at, eps in points:  # Lagrange's form
            weight = 1.0
            for other, _ in points:
                if other != at:
                    weight *= (state.log_snr - other) / (at - other)
            result = result + weight * eps
        return result


def read_output(argument: str) -> Output:
    """'o' → readout. Raises UserError when it is no order."""
    if not argument.isdecimal():
        raise UserError(f"readout output:{argument} has order {argument!r}, expected 0, 1 or 2")
    return Output(int(argument))
