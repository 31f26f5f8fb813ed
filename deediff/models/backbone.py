"""The interface between early exit and the network that it stops early.

A backbone is N blocks between an embedding and a decoder. The rest of the package addresses these parts by number, so
that any network of stages (U-ViT, U-Net, DiT) can implement it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn


class BackboneConfig:
    """Base of each backbone's frozen dataclass of sizes; `str()` describes the network in words."""

    img_size: int  # image height and width in pixels
    in_chans: int  # image channels C
    num_classes: int  # 0: unconditional

    @property
    def num_blocks(self) -> int:
        """N."""
        raise NotImplementedError


class Backbone(nn.Module, ABC):
    """N blocks from a noisy image and a timestep to a prediction of the noise.

    `state` is the tensor (B, tokens, D) that flows from block to block. Tokens and width D may differ between layers.
    """

    num_blocks: int  # N
    dim: int  # width D of a state, where it is largest
    in_chans: int  # image channels C
    img_size: int  # image height and width in pixels
    num_classes: int  # 0: unconditional
    state_size: int  # number of values in one image's state, where it is largest
    extras: int  # leading tokens of a state that are not part of the image
    patch_dim: int  # values of the image per image token of the first state

    @abstractmethod
    def embed(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,C,H,W) images, (B,) timesteps, optional (B,) labels → input state of block 0, (B, …)."""

    @abstractmethod
    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        """Run block `i`: (B, …) → (B, …). `skip` is the output of block `skip_source(i)` for the same samples."""

    @abstractmethod
    def skip_source(self, i: int) -> int | None:
        """The earlier block whose output block `i` reads through a long skip, or None."""

    @abstractmethod
    def decode(self, state: Tensor) -> Tensor:
        """Output state of the last block → (B,C,H,W) noise prediction."""

    @abstractmethod
    def unpatchify(self, values: Tensor) -> Tensor:
        """Values per image token of any layer, (B, image tokens, patch_dim) → (B,C,H,W), or one value → (B,1,h,w)."""

    @abstractmethod
    def make_head(self, layer: int) -> nn.Module:
        """A fresh output head g_i of exit `layer`: input state of that block → (B,C,H,W) noise prediction."""

    def layer_dim(self, layer: int) -> int:
        """Width D of the input state of block `layer`; of the last output for N."""
        return self.dim

    def layer_patch_dim(self, layer: int) -> int:
        """Values of the image per image token in the input state of block `layer`."""
        return self.patch_dim

    def layer_shape(self, layer: int) -> tuple[int, int]:
        """What tells states of different shapes apart: width and values of the image per token."""
        return self.layer_dim(layer), self.layer_patch_dim(layer)

    @property
    def is_uniform(self) -> bool:
        """Whether the states of all layers have the same shape."""
        return len({self.layer_shape(i) for i in range(self.num_blocks + 1)}) == 1

    def make_timestep_head(self, num_timesteps: int) -> nn.Module:
        """A fresh output head that depends on the timestep: input state of any block, (B,) → (B,C,H,W).

        It equals that of `make_head`, and its attribute `reads_timestep` is True. Raises ValueError if there is none.
        """
        raise ValueError(f"a {type(self).__name__} has no output head that depends on the timestep: use 'linear'")

    def make_branch(self) -> nn.Module:
        """A fresh small block for the head 'branch': input state of any block → (B, …). Starts as the identity.

        Raises ValueError if there is none.
        """
        raise ValueError(f"a {type(self).__name__} has no block for a branch: use the output head 'linear'")

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """`name` in `BACKBONES` and the fields of its config, from which `build_backbone` rebuilds this network."""

    def states(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Iterator[Tensor]:
        """The input states of blocks 0 … N−1, then the output state of block N−1 (N+1 in all)."""
        sources = {self.skip_source(i) for i in range(self.num_blocks)} - {None}
        outputs: dict[int, Tensor] = {}
        state = self.embed(x, t, y)
        for i in range(self.num_blocks):
            yield state
            source = self.skip_source(i)
            state = self.block(i, state, None if source is None else outputs.pop(source))
            if i in sources:
                outputs[i] = state
        yield state

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,C,H,W), (B,) → (B,C,H,W): the full network, no early exit."""
        *_, last = self.states(x, t, y)
        return self.decode(last)


def check_inputs(net: Backbone, x: Tensor, y: Tensor | None) -> None:
    """Raises ValueError unless images (B,C,H,W) and labels (B,) fit the network."""
    expected = (net.in_chans, net.img_size, net.img_size)
    if x.shape[1:] != expected:
        raise ValueError(f"images are {tuple(x.shape[1:])}, this model takes {expected}")
    if (y is None) != (net.num_classes == 0):
        raise ValueError("a class-conditional model needs labels, an unconditional one takes none")
