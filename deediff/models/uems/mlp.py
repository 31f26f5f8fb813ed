"""The linear UEM: Eq. 5 of DeeDiff, in all its published readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deediff.models.embedding import timestep_embedding
from deediff.models.uems.base import UEM, NetworkShape, check_layers, check_option


@dataclass(frozen=True)
class MLPOptions:
    """The options of an MLP UEM, as `config` stores them."""

    scope: str = "layer"  # own weights per "layer", "timestep" or "layer_timestep"
    tokens: str = "all"  # "all", or "image": without the time and class tokens
    timestep_embedding: bool = False  # append the timestep's embedding to every token (Eq. 5, literally)
    map: bool = False  # one value per value of the image instead of one per token (AdaDiff)
    aggregation: str = "mean"  # "mean" or "max" over tokens; "sum" is normalised by their number: the mean
    detach: bool = False  # no gradient into the network
    layers: Sequence[int] | None = None  # exits with a UEM; None: all
    first_timestep: bool = False  # the public code's error: the first sample's timestep for the whole batch

    def __post_init__(self) -> None:
        check_option("scope", self.scope, ("layer", "timestep", "layer_timestep"))
        check_option("tokens", self.tokens, ("all", "image"))
        check_option("aggregation", self.aggregation, ("mean", "max", "sum"))


class MLPUncertainty(UEM):
    """One linear map and a sigmoid per token, then their mean (DeeDiff, Eq. 5).

    The weights are one tensor with a row per layer, per timestep, or per pair of both: for 13 layers and 1000 timesteps
    13 000 UEMs, of which each sample uses the one of its own timestep. Where layers differ in width, rows of narrower
    ones have entries at their end that are not used.
    """

    by_token = True

    def __init__(self, shape: NetworkShape, **options: Any):  # see MLPOptions
        super().__init__()
        chosen = MLPOptions(**options)
        self.scope, self.aggregation = chosen.scope, chosen.aggregation
        self.tokens = "image" if chosen.map else chosen.tokens
        self.layers = check_layers(chosen.layers, shape.num_layers)
        self.timestep_embedding, self.gives_map, self.detach = chosen.timestep_embedding, chosen.map, chosen.detach
        self.first_timestep, self.shape = chosen.first_timestep, shape
        if self.scope == "timestep" and shape.dims:
            raise ValueError("UEMs per timestep are shared by layers, whose widths differ here: use scope 'layer'")
        self.values = [shape.patch_dim_of(layer) if chosen.map else 1 for layer in self.layers]  # per token
        repeats = 1 if self.scope == "layer" else shape.num_timesteps
        counts = self.values[:1] if self.scope == "timestep" else self.values  # per set of weights
        self.first_row = [repeats * sum(counts[:position]) for position in range(len(counts))]
        width = shape.dim * (2 if chosen.timestep_embedding else 1)
        self.weight = nn.Parameter(torch.randn(repeats * sum(counts), width) * 0.02)
        self.bias = nn.Parameter(torch.zeros(repeats * sum(counts)))

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
            emb = timestep_embedding(t, state.shape[-1]).to(state.dtype)
            state = torch.cat([state, emb[:, None].expand_as(state)], dim=-1)  # (B, tokens, 2·D)
        position, repeats = self.layers.index(layer), 1 if self.scope == "layer" else self.shape.num_timesteps
        values, first = self.values[position], self.first_row[0 if self.scope == "timestep" else position]
        rows = slice(first, first + repeats * values)
        weight, bias = self.weight[rows, : state.shape[-1]], self.bias[rows]
        if self.scope == "layer":
            return F.linear(state, weight, bias).sigmoid()
        weight = weight.unflatten(0, (-1, values))[t]  # (B, values, D)
        bias = bias.unflatten(0, (-1, values))[t]  # (B, values)
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
