"""Uncertainty estimation modules (UEMs): how wrong would the output head be here?

A UEM is asked for one layer at a time, because a sampler that really exits only ever sees the
layers up to the exit. To add one: subclass `UEM`, register it in `UEMS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from deediff.models.embedding import timestep_embedding


@dataclass(frozen=True)
class Watched:
    """What a UEM has to know of the network that it watches."""

    num_layers: int  # N
    dim: int  # width D of the tokens
    extras: int = 1  # leading tokens that are not part of the image: time, class
    patch_dim: int = 1  # values of an image that one token stands for
    num_timesteps: int = 1000  # T


class UEM(nn.Module, ABC):
    """u_{i,t} of Eq. 5 for some or all of the N exits."""

    layers: tuple[int, ...]  # the exits that have one, ascending
    clamps: bool = False  # whether its answers may leave [0, 1] and are cut
    by_token: bool = False  # whether `map` and `pool` answer …
    gives_map: bool = False  # … and per value of the image, not per token

    @abstractmethod
    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """Input state (B, L, D) of block `layer`, timesteps (B,) → uncertainty (B,) in [0, 1]."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What `build_uem` needs besides `Watched`."""

    def probe(self, layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        """`forward` of one layer, for many calls between which the weights do not change."""
        return partial(self.forward, layer)

    def map(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """The uncertainty before it is aggregated: (B, L, D), (B,) → (B, tokens that it reads, 1 or patch_dim)."""
        raise NotImplementedError(f"{type(self).__name__} predicts a scalar, not a map")

    def pool(self, u: Tensor) -> Tensor:
        """A map as one number per sample: (B, tokens, values) → (B,)."""
        raise NotImplementedError(f"{type(self).__name__} predicts a scalar, not a map")


def _check_layers(layers: Sequence[int] | None, num_layers: int) -> tuple[int, ...]:
    chosen = tuple(range(num_layers)) if layers is None else tuple(sorted(set(layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_layers:
        raise ValueError(f"UEMs were asked for at layers {layers}, expected some of 0 … {num_layers - 1}")
    return chosen


def _one_of(what: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"the UEM's {what} is {value!r}, expected one of: {', '.join(known)}")
    return value


class MLPUncertainty(UEM):
    """One linear map and a sigmoid per token, then their mean: Eq. 5, in all its published readings.

    The weights are one tensor, a row for each layer, timestep, or both: with 13 layers and 1000
    timesteps 13 000 UEMs, of which each sample uses that of its own timestep.
    """

    by_token = True

    def __init__(
        self,
        watched: Watched,
        scope: str = "layer",  # own weights per "layer", "timestep" or "layer_timestep"
        tokens: str = "all",  # "all", or "image": without the time and class tokens
        timestep_embedding: bool = False,  # append the timestep's embedding to every token (Eq. 5, literally)
        map: bool = False,  # one value per value of the image instead of one per token (AdaDiff)
        aggregation: str = "mean",  # "mean" or "max" over tokens; "sum" is normalised by their number: the mean
        detach: bool = False,  # no gradient into the network
        layers: Sequence[int] | None = None,  # the exits that get one; None: all
        first_timestep: bool = False,  # the public code's error: the first sample's timestep for the whole batch
    ):
        super().__init__()
        self.scope = _one_of("scope", scope, ("layer", "timestep", "layer_timestep"))
        self.tokens = "image" if map else _one_of("tokens", tokens, ("all", "image"))
        self.aggregation = _one_of("aggregation", aggregation, ("mean", "max", "sum"))
        self.layers = _check_layers(layers, watched.num_layers)
        self.timestep_embedding, self.gives_map, self.detach = timestep_embedding, map, detach
        self.first_timestep, self.watched = first_timestep, watched
        self.values = watched.patch_dim if map else 1  # per token
        rows = 1 if scope == "timestep" else len(self.layers)
        rows *= 1 if scope == "layer" else watched.num_timesteps
        self.weight = nn.Parameter(
            torch.randn(rows * self.values, watched.dim * (2 if timestep_embedding else 1)) * 0.02
        )
        self.bias = nn.Parameter(torch.zeros(rows * self.values))

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        return self.pool(self.map(layer, state, t))

    def probe(self, layer: int) -> Callable[[Tensor, Tensor], Tensor]:
        plain = self.scope == "layer" and self.tokens == "all" and not self.timestep_embedding
        if not plain or self.aggregation == "max":
            return super().probe(layer)
        position = self.layers.index(layer)
        weight, bias, means = self.weight[position], self.bias[position].item(), dict[int, Tensor]()

        def ask(state: Tensor, t: Tensor) -> Tensor:
            u = torch.matmul(state, weight).add_(bias).sigmoid_()  # (B, L)
            tokens = u.shape[1]
            if tokens not in means:
                means[tokens] = u.new_full((tokens,), 1 / tokens)
            return u.mv(means[tokens])  # in half the time of `mean`

        return ask

    def pool(self, u: Tensor) -> Tensor:
        if self.aggregation == "max":
            return u.amax(dim=(1, 2))
        return u.sum(dim=(1, 2)) / (u.shape[1] * u.shape[2])  # the mean, in a fifth of the time of `mean`

    def map(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """Per token, or with `map` per value of the image: (B, L, D), (B,) → (B, tokens, values)."""
        if self.tokens == "image":
            state = state[:, self.watched.extras :]
        if self.detach:
            state = state.detach()
        if self.first_timestep:
            t = t[:1].expand_as(t)
        if self.timestep_embedding:
            emb = timestep_embedding(t, self.watched.dim).to(state.dtype)
            state = torch.cat([state, emb[:, None].expand_as(state)], dim=-1)
        position, values = self.layers.index(layer), self.values
        if self.scope == "layer":
            rows = slice(position * values, (position + 1) * values)
            return F.linear(state, self.weight[rows], self.bias[rows]).sigmoid()
        row = t if self.scope == "timestep" else position * self.watched.num_timesteps + t  # (B,)
        weight = self.weight.unflatten(0, (-1, values))[row]  # (B, values, D)
        bias = self.bias.unflatten(0, (-1, values))[row]  # (B, values)
        return torch.baddbmm(bias[:, None], state, weight.transpose(1, 2)).sigmoid()

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


class AttentionUncertainty(UEM):
    """A learned query attends over the image tokens, then an MLP and a sigmoid; own weights per layer.

    Source: the blog's attention probe, which has no sigmoid: for its checkpoints `squash="clamp"`
    cuts what leaves [0, 1].
    """

    def __init__(
        self,
        watched: Watched,
        scope: str = "layer",
        num_heads: int = 8,
        tokens: str = "image",  # or "all"
        detach: bool = False,  # no gradient into the network
        layers: Sequence[int] | None = None,  # the exits that get one; None: all
        squash: str = "sigmoid",  # or "clamp"
    ):
        super().__init__()
        dim = watched.dim
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"width {dim} is not a multiple of the {num_heads} attention heads of the UEM")
        _one_of("scope", scope, ("layer",))
        self.tokens = _one_of("tokens", tokens, ("all", "image"))
        self.squash = _one_of("squash", squash, ("sigmoid", "clamp"))
        self.clamps = squash == "clamp"
        self.layers = _check_layers(layers, watched.num_layers)
        self.num_heads, self.detach, self.watched = num_heads, detach, watched
        count = len(self.layers)
        self.q = nn.Parameter(torch.randn(count, num_heads, 1, dim // num_heads) * 0.02)
        self.weight_kv = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(count))
        self.classification = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, 1)) for _ in range(count)
        )

    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        position = self.layers.index(layer)
        if self.tokens == "image":
            state = state[:, self.watched.extras :]
        if self.detach:
            state = state.detach()
        kv = self.weight_kv[position](state)
        k, v = rearrange(kv, "b l (two h d) -> two b h l d", two=2, h=self.num_heads)
        q = self.q[position].to(k.dtype).expand(len(state), -1, -1, -1)
        pooled = rearrange(F.scaled_dot_product_attention(q, k, v), "b h 1 d -> b (h d)")
        answer = self.classification[position](pooled)[:, 0]
        return answer.sigmoid() if self.squash == "sigmoid" else answer.clamp(0, 1)

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


UEMS: dict[str, type[UEM]] = {"mlp": MLPUncertainty, "attention": AttentionUncertainty}


def build_uem(config: dict[str, Any], watched: Watched) -> UEM:
    """Build a UEM from its `config()`. Raises ValueError for a name or option that is not known."""
    options = dict(config)
    name = options.pop("name", None)
    if name not in UEMS:
        raise ValueError(f"unknown UEM {name!r}, expected one of: {', '.join(UEMS)}")
    try:
        return UEMS[name](watched, **options)
    except TypeError as error:
        raise ValueError(f"the UEM's config does not fit {name!r}: {error}") from None
