"""The interface of a solver.

To add a solver: subclass `Solver` in a file of its own and add a line to `registry.py`.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.timesteps import check_timesteps, spaced_timesteps


class Solver(ABC):
    """A list of timesteps and the update from one to the next, the same for every sample."""

    stochastic: bool  # `step` reads `noise`
    has_eta: ClassVar[bool] = False  # the constructor takes `eta` as well
    multistep: ClassVar[bool] = False  # `step` reads `previous_x0`

    def __init__(self, schedule: Schedule, steps: int | Sequence[int], spacing: str = "trailing"):
        """`steps` is a number, spread over the schedule by `spacing`, or the timesteps themselves, descending."""
        self.schedule = schedule
        if isinstance(steps, int):
            self.timesteps = spaced_timesteps(schedule, steps, spacing, self.multistep)
        else:
            self.timesteps = check_timesteps(steps, schedule.num_timesteps)
        alphas_bar = schedule.alphas_bar.tolist()
        self._alpha_bar = [alphas_bar[t] for t in self.timesteps] + [1.0]  # after the last step: x_0

    @abstractmethod
    def step(
        self, s: int, x: Tensor, eps: Tensor, noise: Tensor | None = None, previous_x0: Tensor | None = None
    ) -> Tensor:
        """Denoising step `s` (0, 1, …): x and the predicted noise, (B,C,H,W) each → the next x.

        `noise` is standard normal, read when `needs_noise(s)`; `previous_x0` is `predict_x0` of step s−1, read
        by multistep solvers.
        """

    def predict_x0(self, s: int, x: Tensor, eps: Tensor) -> Tensor:
        """x̂_0 = (x_t − √(1−ᾱ_t) ε)/√ᾱ_t (Song et al. 2021, Eq. 9). (B,C,H,W) twice → (B,C,H,W)."""
        a = self._alpha_bar[s]
        return (x - (1 - a) ** 0.5 * eps) / a**0.5

    def to_epsilon(self, s: int, x: Tensor, x0: Tensor) -> Tensor:
        """ε of a predicted clean image: the inverse of `predict_x0`. (B,C,H,W) twice → (B,C,H,W)."""
        a = self._alpha_bar[s]
        return (x - a**0.5 * x0) / (1 - a) ** 0.5

    def alpha_bar(self, s: int) -> float:
        """ᾱ of the timestep of step `s`; 1 after the last step."""
        return self._alpha_bar[s]

    def log_snr(self, s: int) -> float:
        """λ = log(√ᾱ / √(1−ᾱ)) of the timestep of step `s`, half of the log signal-to-noise ratio."""
        a = self._alpha_bar[s]
        return 0.5 * math.log(a / (1 - a))

    def fresh(self) -> Solver:
        """The solver for one batch: another one for solvers that keep what earlier steps predicted."""
        return self

    def between(self, steps: Sequence[int]) -> Solver:
        """This solver with some of its steps only, in order."""
        other = copy.copy(self)
        other.timesteps = [self.timesteps[s] for s in steps]
        other._alpha_bar = [self._alpha_bar[s] for s in steps] + [1.0]
        return other

    def needs_noise(self, s: int) -> bool:
        """Whether step `s` adds noise; the last step never does."""
        return self.stochastic and s < len(self.timesteps) - 1
