"""The interface of uncertainty estimation modules (UEMs)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from deediff.models.backbone import Backbone


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of a backbone that its UEMs depend on; the largest ones where its layers differ."""

    num_layers: int  # N
    dim: int  # width D of the tokens
    extras: int = 1  # leading tokens that are not part of the image: time, class
    patch_dim: int = 1  # values of an image per token
    num_timesteps: int = 1000  # T
    dims: tuple[int, ...] = ()  # per layer, where widths differ …
    patch_dims: tuple[int, ...] = ()  # … and the values per token

    @classmethod
    def of(cls, net: Backbone, num_timesteps: int = 1000) -> NetworkShape:
        """The shape of this backbone, trained with this many timesteps."""
        shape = cls(net.num_blocks, net.dim, net.extras, net.patch_dim, num_timesteps)
        if net.is_uniform:
            return shape
        layers = range(net.num_blocks)
        dims, patch_dims = (tuple(map(f, layers)) for f in (net.layer_dim, net.layer_patch_dim))
        return replace(shape, dims=dims, patch_dims=patch_dims)

    def dim_of(self, layer: int) -> int:
        """Width D of the tokens of this layer."""
        return self.dims[layer] if self.dims else self.dim

    def patch_dim_of(self, layer: int) -> int:
        """Values of an image per token of this layer."""
        return self.patch_dims[layer] if self.patch_dims else self.patch_dim


class UEM(nn.Module, ABC):
    """Uncertainties u_{i,t} (DeeDiff, Eq. 5) at some or all of the N exits.

    The constructor takes a `NetworkShape`, then the options that `config` returns. Each call evaluates one layer,
    because with real exits the later states do not exist yet.
    """

    layers: tuple[int, ...]  # exits that have a UEM, ascending
    clamps: bool = False  # whether raw outputs outside [0, 1] are clamped
    by_token: bool = False  # whether `map` and `pool` are implemented …
    gives_map: bool = False  # … and `map` has one value per value of the image instead of one per token

    @abstractmethod
    def forward(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """Input state (B, L, D) of block `layer`, timesteps (B,) → uncertainty (B,) in [0, 1]."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Name and options, from which `build_uem` rebuilds this module."""

    def map(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """The uncertainty before aggregation: (B, L, D), (B,) → (B, tokens, 1 or patch_dim)."""
        raise NotImplementedError(f"{type(self).__name__} predicts a scalar, not a map")

    def pool(self, u: Tensor) -> Tensor:
        """Aggregate a map: (B, tokens, values) → (B,)."""
        raise NotImplementedError(f"{type(self).__name__} predicts a scalar, not a map")


def check_layers(layers: Sequence[int] | None, num_layers: int) -> tuple[int, ...]:
    """The layers in ascending order, None meaning all. Raises ValueError outside 0 … N−1."""
    chosen = tuple(range(num_layers)) if layers is None else tuple(sorted(set(layers)))
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_layers:
        raise ValueError(f"the UEMs' layers are {layers}, expected some of 0 … {num_layers - 1}")
    return chosen


def check_option(name: str, value: str, known: Sequence[str]) -> str:
    """The value itself. Raises ValueError if it is not known."""
    if value not in known:
        raise ValueError(f"the UEM's {name} is {value!r}, expected one of: {', '.join(known)}")
    return value
