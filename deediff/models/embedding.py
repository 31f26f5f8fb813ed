"""The sinusoidal embedding of a timestep."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000.0, freq_shift: int = 0) -> Tensor:
    """(B,) timesteps → (B, dim) sinusoids, cosines first, as in the official code of U-ViT.

    The frequencies fall from 1 to 1/max_period, exclusive; with `freq_shift` 1 inclusive, as in DDPM.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / (half - freq_shift)
    freqs = torch.exp(-math.log(max_period) * exponents)
    angles = t.float()[:, None] * freqs
    emb = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(emb, (0, dim % 2))
