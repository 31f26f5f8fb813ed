"""DDPM (Ho et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from deediff.diffusion.solvers.base import Solver


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
