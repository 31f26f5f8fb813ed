"""The interface of a solver, and the timesteps of a sampling.

To add a solver: subclass `Solver` in a file of its own and add a line to `registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError

SPACINGS = ("trailing", "linspace")


def spaced_timesteps(num_timesteps: int, steps: int, spacing: str) -> list[int]:
    """`steps` timesteps in T−1 … 0, descending (Lin et al. 2024, Table 2).

    trailing: T−1, T−1−T/steps, …, about T/steps − 1; linspace: T−1 … 0, both ends included.
    Raises UserError when `steps` is outside 1 … T or the spacing is unknown.
    """
    if not 1 <= steps <= num_timesteps:
        raise UserError(f"steps is {steps}, expected 1 … {num_timesteps} (the training's number of timesteps)")
    if spacing == "trailing":
        t = np.round(np.arange(num_timesteps, 0, -num_timesteps / steps))[:steps] - 1
    elif spacing == "linspace":
        t = np.round(np.linspace(num_timesteps - 1, 0, steps))
    else:
        raise UserError(f"unknown spacing {spacing!r}, expected one of: {', '.join(SPACINGS)}")
    return [int(v) for v in t]


class Solver(ABC):
    """A list of timesteps and the update from one to the next, the same for every sample."""

    stochastic: bool  # `step` reads `noise`
    has_eta: ClassVar[bool] = False  # the constructor takes `eta` as well

    def __init__(self, schedule: Schedule, steps: int, spacing: str = "trailing"):
        self.schedule = schedule
        self.timesteps = spaced_timesteps(schedule.num_timesteps, steps, spacing)
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

    def alpha_bar(self, s: int) -> float:
        """ᾱ of the timestep of step `s`."""
        return self._alpha_bar[s]

    def needs_noise(self, s: int) -> bool:
        """Whether step `s` adds noise; the last step never does."""
        return self.stochastic and s < len(self.timesteps) - 1
