"""ε̂ = x_t: the prediction at pure noise, where the signal has all but vanished."""

from __future__ import annotations

from torch import Tensor

from deediff.readouts.base import Readout, ReadoutState


class Input(Readout):
    """The noisy image as the predicted noise; nothing is computed or measured."""

    spec = "input"

    def epsilon(self, state: ReadoutState) -> Tensor:
        return state.x
