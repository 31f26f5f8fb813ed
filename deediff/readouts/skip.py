"""No prediction: the sample's solver step goes on to the next timestep, and is so much longer."""

from __future__ import annotations

from torch import Tensor

from deediff.readouts.base import Readout, ReadoutState


class Skip(Readout):
    """A sample that exits skips the timestep; its earlier solver step becomes longer. Nothing is run for it."""

    spec = "skip"
    predicts = False
    needs_earlier = 1

    def epsilon(self, state: ReadoutState) -> Tensor:
        raise NotImplementedError("a skipped timestep has no prediction")
