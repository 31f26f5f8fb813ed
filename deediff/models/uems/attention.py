"""The attention UEM: a learned query attends over the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from deediff.models.uems.base import UEM, NetworkShape, check_layers, check_option


class AttentionUncertainty(UEM):
    """A learned query attends over the image tokens, then an MLP and a sigmoid; own weights per layer.

    Source: the attention probe of the DeeDiff blog. It has no sigmoid: for its checkpoints, `squash="clamp"` clamps the
    output to [0, 1].
    """

    def __init__(
        self,
        shape: NetworkShape,
        scope: str = "layer",
        num_heads: int = 8,
        tokens: str = "image",  # or "all"
        detach: bool = False,  # no gradient into the network
        layers: Sequence[int] | None = None,  # exits with a UEM; None: all
        squash: str = "sigmoid",  # or "clamp"
    ):
        super().__init__()
        check_option("scope", scope, ("layer",))
        self.tokens = check_option("tokens", tokens, ("all", "image"))
        self.squash = check_option("squash", squash, ("sigmoid", "clamp"))
        self.clamps = squash == "clamp"
        self.layers = check_layers(layers, shape.num_layers)
        self.num_heads, self.detach, self.shape = num_heads, detach, shape
        dims = [shape.dim_of(layer) for layer in self.layers]
        for dim in dims:
            if num_heads < 1 or dim % num_heads:
                raise ValueError(f"width {dim} is not a multiple of the {num_heads} attention heads of the UEM")
        self.q = nn.Parameter(torch.randn(len(dims), num_heads, 1, max(dims) // num_heads) * 0.02)
        self.weight_kv = nn.ModuleList(nn.Linear(dim, 2 * dim) for dim in dims)
        self.classification = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1)) for dim in dims
        )

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        position = self.layers.index(layer)
        if self.tokens == "image":
            state = state[:, self.shape.extras :]  # (B, image tokens, D)
        if self.detach:
            state = state.detach()
        kv = self.weight_kv[position](state)  # (B, image tokens, 2·D)
        k, v = rearrange(kv, "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        q = self.q[position, ..., : k.shape[-1]].to(k.dtype).expand(len(state), -1, -1, -1)  # (B, heads, 1, head_dim)
        pooled = rearrange(F.scaled_dot_product_attention(q, k, v), "b h 1 d -> b (h d)")
        logit = self.classification[position](pooled)[:, 0]  # (B,)
        return logit.sigmoid() if self.squash == "sigmoid" else logit.clamp(0, 1)

    def config(self) -> dict[str, Any]:
        return {
            "name": "attention",
            "scope": "layer",
            "num_heads": self.num_heads,
            "tokens": self.tokens,
            "detach": self.detach,
            "layers": list(self.layers),
            "squash": self.squash,
        }
