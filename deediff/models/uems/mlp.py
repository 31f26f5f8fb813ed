"""The linear UEM: Eq. 5 of DeeDiff, in all its published readings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deediff.models.embedding import timestep_embedding
from deediff.models.uems.base import UEM, NetworkShape, check_layers, check_option


class MLPUncertainty(UEM):
    """One linear map and a sigmoid per token, then their mean (DeeDiff, Eq. 5).

    The weights are one tensor with a row per layer, per timestep, or per pair of both: for 13 layers and 1000 timesteps
    13 000 UEMs, of which each sample uses the one of its own timestep.
    """

    by_token = True

    def __init__(
        self,
        shape: NetworkShape,
        scope: str = "layer",  # own weights per "layer", "timestep" or "layer_timestep"
        tokens: str = "all",  # "all", or "image": without the time and class tokens
        timestep_embedding: bool = False,  # append the timestep's embedding to every token (Eq. 5, literally)
        map: bool = False,  # one value per value of the image instead of one per token (AdaDiff)
        aggregation: str = "mean",  # "mean" or "max" over tokens; "sum" is normalised by their number: the mean
        detach: bool = False,  # no gradient into the network
        layers: Sequence[int] | None = None,  # exits with a UEM; None: all
        first_timestep: bool = False,  # the public code's error: the first sample's timestep for the whole batch
    ):
        super().__init__()
        self.scope = check_option("scope", scope, ("layer", "timestep", "layer_timestep"))
        self.tokens = "image" if map else check_option("tokens", tokens, ("all", "image"))
        self.aggregation = check_option("aggregation", aggregation, ("mean", "max", "sum"))
        self.layers = check_layers(layers, shape.num_layers)
        self.timestep_embedding, self.gives_map, self.detach = timestep_embedding, map, detach
        self.first_timestep, self.shape = first_timestep, shape
        self.values = shape.patch_dim if map else 1  # per token
        rows = 1 if scope == "timestep" else len(self.layers)
        rows *= 1 if scope == "layer" else shape.num_timesteps
        width = shape.dim * (2 if timestep_embedding else 1)
        self.weight = nn.Parameter(torch.randn(rows * self.values, width) * 0.02)
        self.bias = nn.Parameter(torch.zeros(rows * self.values))

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        return self.pool(self.map(layer, state, t))

    def map(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """u per token, or with `map` per value of the image: (B, L, D), (B,) → (B, tokens, values)."""
        if self.tokens == "image":
            state = state[:, self.shape.extras :]  # (B, image tokens, D)
        if self.detach:
            state = state.detach()
        if self.first_timestep:
            t = t[:1].expand_as(t)
        if self.timestep_embedding:
            emb = timestep_embedding(t, self.shape.dim).to(state.dtype)
            state = torch.cat([state, emb[:, None].expand_as(state)], dim=-1)  # (B, tokens, 2·D)
        position, values = self.layers.index(layer), self.values
        if self.scope == "layer":
            rows = slice(position * values, (position + 1) * values)
            return F.linear(state, self.weight[rows], self.bias[rows]).sigmoid()
        row = t if self.scope == "timestep" else position * self.shape.num_timesteps + t  # (B,)
        weight = self.weight.unflatten(0, (-1, values))[row]  # (B, values, D)
        bias = self.bias.unflatten(0, (-1, values))[row]  # (B, values)
        return torch.baddbmm(bias[:, None], state, weight.transpose(1, 2)).sigmoid()

    def pool(self, u: Tensor) -> Tensor:
        if self.aggregation == "max":
            return u.amax(dim=(1, 2))
        return u.sum(dim=(1, 2)) / (u.shape[1] * u.shape[2])  # the mean, in a fifth of the time of `mean`

    def config(self) -> dict[str, Any]:
        return {
            "name": "mlp",
            "scope": self.scope,
            "tokens": self.tokens,
            "timestep_embedding": self.timestep_embedding,
            "map": self.gives_map,
            "aggregation": self.aggregation,
            "detach": self.detach,
            "layers": list(self.layers),
            "first_timestep": self.first_timestep,
        }
