"""A threshold with patience, as in AdaDiff's public code."""

from __future__ import annotations

import torch
from torch import Tensor

from deediff.policies.base import LayerState
from deediff.policies.threshold import Threshold


class Patience(Threshold):
    """Exit when u ≤ τ; in the first half of the network only if u ≤ τ at an earlier layer, too."""

    needs_lowest_uncertainty = True

    def __init__(self, threshold: float):
        super().__init__(threshold)
        self.spec = f"patience:{float(threshold)!r}"

    def should_exit(self, state: LayerState) -> Tensor:
        certain = super().should_exit(state)
        if state.layer > state.num_blocks // 2:
            return certain
        if state.lowest_uncertainty is None:
            return torch.zeros_like(certain)
        return certain & (state.lowest_uncertainty <= float(self.threshold))
