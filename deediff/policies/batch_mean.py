"""One decision for a whole batch, as in AdaDiff's public code."""

from __future__ import annotations

from torch import Tensor

from deediff.policies.base import LayerState
from deediff.policies.threshold import Threshold


class BatchMean(Threshold):
    """All samples of a batch exit together, when their mean u is ≤ τ.

    For comparison only: the result of a sample depends on the other samples and on the batch size.
    """

    decides_for_batch = True

    def __init__(self, threshold: float):
        super().__init__(threshold)
        self.spec = f"batch-mean:{float(threshold)!r}"

    def should_exit(self, state: LayerState) -> Tensor:
        assert state.uncertainty is not None
        return (state.uncertainty.mean() <= float(self.threshold)).expand(len(state.samples))
