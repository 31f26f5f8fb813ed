"""The noise schedule and the forward process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """Linear β from `beta_start` to `beta_end` over T timesteps (Ho et al. 2020); t = 0 … T−1."""

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    @property
    def betas(self) -> Tensor:
        """(T,) float64: β_t of Eq. 1."""
        return torch.linspace(self.beta_start, self.beta_end, self.num_timesteps, dtype=torch.float64)

    @property
    def alphas_bar(self) -> Tensor:
        """(T,) float64: ᾱ_t = Π_{s≤t} (1 − β_s)."""
        return torch.cumprod(1 - self.betas, dim=0)

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Eq. 1 in closed form: x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε. (B,C,H,W), (B,), (B,C,H,W) → (B,C,H,W)."""
        a = self.alphas_bar.to(device=x0.device, dtype=torch.float32)[t][:, None, None, None]
        return a.sqrt() * x0 + (1 - a).sqrt() * noise
