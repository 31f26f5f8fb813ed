"""Optimisers by name; several of them behind the interface of one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.config import Stage


class Optimizers:
    """Optimisers of disjoint parameters, stepped together."""

    def __init__(self, members: list[torch.optim.Optimizer]):
        self.members = members

    def zero_grad(self) -> None:
        """Reset all gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Update every parameter once."""
        for member in self.members:
            member.step()

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of all parameters."""
        for member in self.members:
            for group in member.param_groups:
                group["lr"] = lr

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each optimiser."""
        return [member.state_dict() for member in self.members]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Restore the states that `state_dict` returned; the hyperparameters stay those of this optimiser."""
        for member, state in zip(self.members, states, strict=True):
            own = [{name: value for name, value in group.items() if name != "params"} for group in member.param_groups]
            member.load_state_dict(state)
            for group, values in zip(member.param_groups, own, strict=True):
                group.update(values)


def make_optimizer(stage: Stage, parameters: Iterable[nn.Parameter]) -> Optimizers:
    """AdamW for all parameters; or Muon (Jordan et al. 2024) for the weight matrices and AdamW for the rest.

    Muon's step is scaled to the size of AdamW's, so that both use the same learning rate.
    """
    parameters = list(parameters)

    def adamw(group: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(group, lr=stage.lr, betas=stage.betas, weight_decay=stage.weight_decay)

    def muon(group: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Muon(group, lr=stage.lr, weight_decay=stage.weight_decay, adjust_lr_fn="match_rms_adamw")

    if stage.optimizer == "adamw":
        return Optimizers([adamw(parameters)])
    matrices = [p for p in parameters if p.ndim == 2 and min(p.shape) >= 64]
    others = [p for p in parameters if not (p.ndim == 2 and min(p.shape) >= 64)]
    return Optimizers([make(group) for make, group in ((muon, matrices), (adamw, others)) if group])
