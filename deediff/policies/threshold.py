"""A threshold on u (DeeDiff, arXiv 2309.17074; AdaDiff)."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from deediff.errors import UserError
from deediff.policies.base import ExitPolicy, LayerState


def check_threshold(value: float) -> np.float32:
    """τ rounded to float32, the precision of u. Raises UserError outside [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"threshold is {value}, expected a number in [0, 1] (exit when u ≤ threshold)")
    return np.float32(value)


class Threshold(ExitPolicy):
    """Exit when u ≤ τ."""

    needs_uncertainty = True

    def __init__(self, threshold: float):
        self.threshold = check_threshold(threshold)
        self.spec = f"threshold:{float(threshold)!r}"

    def should_exit(self, state: LayerState) -> Tensor:
        assert state.uncertainty is not None
        return state.uncertainty <= float(self.threshold)
