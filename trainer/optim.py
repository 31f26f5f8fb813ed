"""Optimisers by name, as one object."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.presets import Stage


class Optimizers:
    """Several optimisers that step together, each on parameters of its own."""

    def __init__(self, members: list[torch.optim.Optimizer]):
        self.members = members

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def step(self) -> None:
        """One update of every parameter."""
        for member in self.members:
            member.step()

    def set_lr(self, lr: float) -> None:
        """The same learning rate for all."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = lr

    def state_dict(self) -> list[dict[str, Any]]:
        """One state per member."""
        return [member.state_dict() for member in self.members]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """What `state_dict` gave."""
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(state)


def make_optimizer(stage: Stage, parameters: Iterable[nn.Parameter]) -> Optimizers:
    """adamw; or muon for the weight matrices with adamw for everything else.

    Muon (Jordan et al. 2024), its step scaled to AdamW's size, so one learning rate serves both.
    """
    parameters = list(parameters)

    def adamw(some: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(some, lr=stage.lr, betas=stage.betas, weight_decay=stage.weight_decay)

    def muon(some: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Muon(some, lr=stage.lr, weight_decay=stage.weight_decay, adjust_lr_fn="match_rms_adamw")

    if stage.optimizer == "adamw":
        return Optimizers([adamw(parameters)])
    hidden = [p for p in parameters if p.ndim == 2 and min(p.shape) >= 64]
    rest = [p for p in parameters if not (p.ndim == 2 and min(p.shape) >= 64)]
    return Optimizers([make(some) for make, some in ((muon, hidden), (adamw, rest)) if some])  # either may be empty
