"""Uncertainty estimation modules (UEMs): how wrong would the output head be here?

A UEM is asked for one layer at a time, because a sampler that really exits only ever sees the
layers up to the exit. To add one: subclass `UEM`, register it in `UEMS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


class UEM(nn.Module, ABC):
    """u_{i,t} of Eq. 5 for each of `num_layers` exits."""

    num_layers: int

    @abstractmethod
    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """Input state (B, L, D) of block `layer`, timesteps (B,) → uncertainty (B,) in [0, 1]."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What `build_uem` needs besides the backbone's sizes."""


class MLPUncertainty(UEM):
    """One linear map and a sigmoid per token, then the mean over all tokens; own weights per layer.

    Source: Eq. 5 without the timestep embedding, as in the blog's "MLP per layer".
    """

    def __init__(self, num_layers: int, dim: int):
        super().__init__()
        self.num_layers = num_layers
        self.weight = nn.Parameter(torch.randn(num_layers, dim) * 0.02)
        self.bias = nn.Parameter(torch.zeros(num_layers))

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        logits = F.linear(state, self.weight[layer : layer + 1], self.bias[layer : layer + 1])  # (B, L, 1)
        return logits.sigmoid().mean(dim=(1, 2))

    def config(self) -> dict[str, Any]:
        return {"name": "mlp", "scope": "layer"}


class AttentionUncertainty(UEM):
    """A learned query attends over all tokens but the first, then an MLP and a sigmoid; own weights per layer.

    Source: the blog's attention probe (which leaves the sigmoid out).
    """

    def __init__(self, num_layers: int, dim: int, num_heads: int = 8):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"width {dim} is not a multiple of the {num_heads} attention heads of the UEM")
        self.num_layers, self.num_heads = num_layers, num_heads
        self.q = nn.Parameter(torch.randn(num_layers, num_heads, 1, dim // num_heads) * 0.02)
        self.weight_kv = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(num_layers))
        self.classification = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1)) for _ in range(num_layers)
        )

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        kv = self.weight_kv[layer](state[:, 1:])
        k, v = rearrange(kv, "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        q = self.q[layer].to(k.dtype).expand(len(state), -1, -1, -1)
        pooled = rearrange(F.scaled_dot_product_attention(q, k, v), "b h 1 d -> b (h d)")
        return self.classification[layer](pooled)[:, 0].sigmoid()

    def config(self) -> dict[str, Any]:
        return {"name": "attention", "scope": "layer", "num_heads": self.num_heads}


UEMS: dict[str, type[UEM]] = {"mlp": MLPUncertainty, "attention": AttentionUncertainty}


def build_uem(config: dict[str, Any], num_layers: int, dim: int) -> UEM:
    """Build a UEM from its `config()`. Raises ValueError for a name, scope or option that is not known."""
    options = dict(config)
    name, scope = options.pop("name", None), options.pop("scope", "layer")
    if name not in UEMS or scope != "layer":
        raise ValueError(f"unknown UEM {name!r} with scope {scope!r}, expected one of: {', '.join(UEMS)} per layer")
    return UEMS[name](num_layers, dim, **options)
