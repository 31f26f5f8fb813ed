"""The noise schedule and the forward process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """β from `beta_start` to `beta_end` over T timesteps, t = 0 … T−1: linear (Ho et al. 2020), or linear in √β."""

    num_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    kind: str = "linear"  # or "scaled_linear": linear in √β (Rombach et al. 2022)

    def __post_init__(self) -> None:
        if not isinstance(self.num_timesteps, int) or self.num_timesteps < 1:
            raise ValueError(f"num_timesteps is {self.num_timesteps!r}, expected a whole number ≥ 1")
        if not 0 < float(self.beta_start) <= float(self.beta_end) < 1:
            raise ValueError(f"β runs from {self.beta_start} to {self.beta_end}, expected 0 < start ≤ end < 1")
        if self.kind not in ("linear", "scaled_linear"):
            raise ValueError(f"the kind of schedule is {self.kind!r}, expected 'linear' or 'scaled_linear'")

    @property
    def betas(self) -> Tensor:
        """(T,) float64: β_t of Eq. 1."""
        if self.kind == "scaled_linear":
            return Schedule(self.num_timesteps, self.beta_start**0.5, self.beta_end**0.5).betas ** 2
        return torch.linspace(self.beta_start, self.beta_end, self.num_timesteps, dtype=torch.float64)

    @property
    def alphas_bar(self) -> Tensor:
        """(T,) float64: ᾱ_t = Π_{s≤t} (1 − β_s)."""
        return torch.cumprod(1 - self.betas, dim=0)

    def alpha_bar_at(self, t: Tensor) -> Tensor:
        """ᾱ_t for images: (B,) → (B,1,1,1) float32."""
        return self.alphas_bar.to(device=t.device, dtype=torch.float32)[t][:, None, None, None]

    def add_noise(self, x0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Eq. 1 in closed form: x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε. (B,C,H,W), (B,), (B,C,H,W) → (B,C,H,W)."""
        a = self.alpha_bar_at(t)
        return a.sqrt() * x0 + (1 - a).sqrt() * noise


STABLE_DIFFUSION = Schedule(1000, 0.00085, 0.012, "scaled_linear")  # of latents (Rombach et al. 2022)
