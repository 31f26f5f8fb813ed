"""DDIM (Song et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers.base import Solver
from deediff.errors import UserError


class DDIM(Solver):
    """Song et al. 2021, Eq. 12, with σ of Eq. 16; η = 0 is deterministic, η = 1 is DDPM."""

    has_eta = True

    def __init__(self, schedule: Schedule, steps: int | Sequence[int], spacing: str = "trailing", eta: float = 0.0):
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
