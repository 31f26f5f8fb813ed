"""Solvers: one denoising step each, from x_t to x at the next (smaller) timestep.

To add one: a class with `timesteps` and `step`, and a line in `SOLVERS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError

SPACINGS = ("trailing", "linspace")


def spaced_timesteps(num_timesteps: int, steps: int, spacing: str) -> list[int]:
    """`steps` timesteps in T−1 … 0, descending.

    trailing: T−1, T−1−T/steps, … (the last one is above 0); linspace: both ends included.
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
    """A list of timesteps and the update between two of them, the same for every sample."""

    stochastic: bool  # whether `step` reads `noise`

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

        `noise` is standard normal, needed when `needs_noise(s)`; `previous_x0` is what `predict_x0`
        gave at step s−1, for multistep solvers.
        """

    def predict_x0(self, s: int, x: Tensor, eps: Tensor) -> Tensor:
        """x̂_0 = (x_t − √(1−ᾱ_t) ε)/√ᾱ_t. (B,C,H,W) twice → (B,C,H,W)."""
        a = self._alpha_bar[s]
        return (x - (1 - a) ** 0.5 * eps) / a**0.5

    def alpha_bar(self, s: int) -> float:
        """ᾱ of the timestep of step `s`."""
        return self._alpha_bar[s]

    def needs_noise(self, s: int) -> bool:
        """Whether step `s` adds noise (the last one never does)."""
        return self.stochastic and s < len(self.timesteps) - 1


class DDPM(Solver):
    """Ancestral sampling, Eq. 2–3 with variance β̃_t (Ho et al. 2020, Algorithm 2); fewer steps by respacing."""

    stochastic = True

    def step(
        self, s: int, x: Tensor, eps: Tensor, noise: Tensor | None = None, previous_x0: Tensor | None = None
    ) -> Tensor:
        a, a_next = self._alpha_bar[s], self._alpha_bar[s + 1]
        alpha = a / a_next
        mean = (x - (1 - alpha) / (1 - a) ** 0.5 * eps) / alpha**0.5
        if not self.needs_noise(s):
            return mean
        assert noise is not None
        variance = (1 - a_next) / (1 - a) * (1 - alpha)  # β̃_t
        return mean + variance**0.5 * noise


class DDIM(Solver):
    """Song et al. 2021, Eq. 12; η = 0 is deterministic, η = 1 is DDPM."""

    def __init__(self, schedule: Schedule, steps: int, spacing: str = "trailing", eta: float = 0.0):
        super().__init__(schedule, steps, spacing)
        if not 0 <= eta <= 1:
            raise UserError(f"eta is {eta}, expected a number in [0, 1] (0 is deterministic, 1 is DDPM)")
        self.eta, self.stochastic = eta, eta > 0

    def step(
        self, s: int, x: Tensor, eps: Tensor, noise: Tensor | None = None, previous_x0: Tensor | None = None
    ) -> Tensor:
        a, a_next = self._alpha_bar[s], self._alpha_bar[s + 1]
        sigma = self.eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)) ** 0.5
        direction = (1 - a_next - sigma**2) ** 0.5 * eps
        x = a_next**0.5 * self.predict_x0(s, x, eps) + direction
        if self.needs_noise(s):
            assert noise is not None
            x = x + sigma * noise
        return x


class DPMSolver(Solver):
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): deterministic, second order, one evaluation per step.

    The first step and the last one (which lands on x_0) are first order.
    """

    stochastic = False

    def step(
        self, s: int, x: Tensor, eps: Tensor, noise: Tensor | None = None, previous_x0: Tensor | None = None
    ) -> Tensor:
        x0 = self.predict_x0(s, x, eps)
        if s == len(self.timesteps) - 1:
            return x0
        h = self._half_log_snr(s + 1) - self._half_log_snr(s)
        if previous_x0 is not None:
            r = (self._half_log_snr(s) - self._half_log_snr(s - 1)) / h
            x0 = x0 + (x0 - previous_x0) / (2 * r)
        a, a_next = self._alpha_bar[s], self._alpha_bar[s + 1]
        return ((1 - a_next) / (1 - a)) ** 0.5 * x - a_next**0.5 * math.expm1(-h) * x0

    def _half_log_snr(self, s: int) -> float:
        """λ = log(√ᾱ / √(1−ᾱ))."""
        a = self._alpha_bar[s]
        return 0.5 * math.log(a / (1 - a))


SOLVERS: dict[str, type[Solver]] = {"ddim": DDIM, "ddpm": DDPM, "dpm-solver++": DPMSolver}


def make_solver(name: str, schedule: Schedule, steps: int, spacing: str = "trailing", eta: float = 0.0) -> Solver:
    """A solver by name. Raises UserError for an unknown name or a setting out of range."""
    if name not in SOLVERS:
        raise UserError(f"unknown solver {name!r}, expected one of: {', '.join(SOLVERS)}")
    if name == "ddim":
        return DDIM(schedule, steps, spacing, eta)
    if eta:
        raise UserError(f"eta is {eta}, but only ddim has one: leave it out with {name}")
    return SOLVERS[name](schedule, steps, spacing)
