"""A training whose loss, gradient or weights stop being finite saves nothing more."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from deediff.errors import UserError


class FiniteGuard:
    """Remembers on the device, without waiting for it, whether every loss and gradient was finite."""

    def __init__(self, device: torch.device):
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def watch(self, loss: Tensor, gradient_norm: Tensor) -> None:
        """Add the loss of a step and the norm of its gradient, scalars."""
        self._finite &= torch.isfinite(loss.detach()) & torch.isfinite(gradient_norm)

    def check(self, step: int, weights: Iterable[Tensor] = (), dtype: torch.dtype = torch.float32) -> None:
        """Raises UserError unless all watched values are finite, and the weights fit the precision of the checkpoint.

        All processes raise at the same step: their gradients are averaged.
        """
        if not self._finite:
            raise UserError(
                f"the loss or its gradient is not finite at step {step} or just before; nothing of it was saved: run "
                "the same command again to resume from the last checkpoint, with a lower learning rate if this repeats"
            )
        largest = torch.finfo(dtype).max
        if not all(bool((value.abs() <= largest).all()) for value in weights):  # false for NaN, too
            raise UserError(
                f"weights are not finite in {str(dtype).removeprefix('torch.')} at step {step}; they were not saved: "
                "run the same command again to resume from the last checkpoint, with a lower learning rate or with "
                "--save-dtype float32"
            )
