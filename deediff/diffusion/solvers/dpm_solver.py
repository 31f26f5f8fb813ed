"""DPM-Solver++ (Lu et al. 2022)."""

from __future__ import annotations

import math

from torch import Tensor

from deediff.diffusion.solvers.base import Solver


class DPMSolver(Solver):
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): deterministic, second order, one evaluation per step.

    The first step and the last one (which ends at x_0) are first order.
    """

    stochastic = False
    multistep = True

    def step(
        self, s: int, x: Tensor, eps: Tensor, noise: Tensor | None = None, previous_x0: Tensor | None = None
    ) -> Tensor:
        x0 = self.predict_x0(s, x, eps)
        if s == len(self.timesteps) - 1:
            return x0
        h = self.log_snr(s + 1) - self.log_snr(s)
        if previous_x0 is not None:
            r = (self.log_snr(s) - self.log_snr(s - 1)) / h
            x0 = x0 + (x0 - previous_x0) / (2 * r)
        a, a_next = self._alpha_bar[s], self._alpha_bar[s + 1]
        return ((1 - a_next) / (1 - a)) ** 0.5 * x - a_next**0.5 * math.expm1(-h) * x0
