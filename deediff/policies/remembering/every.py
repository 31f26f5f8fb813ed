"""The full network at every k-th step (FORA, Selvaraju et al. 2024; DeepCache, Ma et al. 2024)."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver
from deediff.digits import whole_number
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState


class Every(ExitPolicy):
    """Exit at layer 0 while the sample's last full evaluation is fewer than k steps ago.

    The first `warmup` steps run the full network and, with `last`, the final step as well.
    """

    remembers = True
    reads_past_only = True

    def __init__(self, period: int, warmup: int = 0, last: bool = False):
        if period < 1:
            raise UserError(f"policy every:{period} has period {period}, expected 1 or more steps")
        self.period, self.warmup, self.last = period, warmup, last
        self.spec = f"every:{period}" + f",warmup:{warmup}" * (warmup > 0) + ",last" * last
        self.final_step: int | None = None

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        ready = copy.copy(self)
        ready.final_step = len(solver.timesteps) - 1
        return ready

    def should_exit(self, state: LayerState) -> Tensor | bool:
        assert self.final_step is not None, "call prepared() first"
        if state.since_full is None or state.step < self.warmup or (self.last and state.step == self.final_step):
            return False
        recent = (state.since_full > 0) & (state.since_full < self.period)
        same = bool(recent.all())
        return same if same or not recent.any() else torch.from_numpy(np.ascontiguousarray(recent))

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        return {0}

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        super().check(model, schedule)
        self.check_layer(model, 0)


def read_every(argument: str) -> Every:
    """'k', 'k,warmup:w', 'k,last' or 'k,warmup:w,last' → policy. Raises UserError when it cannot be read."""
    period, *options = argument.split(",")
    warmup, last = 0, False
    for option in options:
        if option == "last":
            last = True
        elif option.startswith("warmup:") and (steps := whole_number(option[7:])) is not None:
            warmup = steps
        else:
            raise UserError(f"policy every:{argument} has the option {option!r}, expected warmup:w or last")
    return Every(int(period), warmup, last)
