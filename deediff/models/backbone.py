"""The interface between early exit and the network that is left early.

A backbone is a stack of N blocks between an embedding and a decoder. Everything else in this
package asks for its parts by number, so any staged network (U-ViT, U-Net, DiT) fits behind it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """N blocks that turn a noisy image and a timestep into a prediction of the noise.

    `state` below is whatever tensor flows from block to block; its first dimension is the batch.
    """

    num_blocks: int  # N
    dim: int  # width D of a state's last dimension
    in_chans: int  # image channels C
    img_size: int  # image height and width in pixels
    num_classes: int  # 0: unconditional
    state_size: int  # values of one image's state, where it is largest
    extras: int  # leading tokens of a state that are not part of the image
    patch_dim: int  # values of the image that one image token stands for

    @abstractmethod
    def embed(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,C,H,W) image, (B,) timesteps, optional (B,) labels → the input state of block 0."""

    @abstractmethod
    def block(self, i: int, state: Tensor, skip: Tensor | None = None) -> Tensor:
        """Run block `i`; `skip` is the output of block `skip_source(i)` for the same samples."""

    def ready_block(self, i: int) -> Callable[[Tensor, Tensor | None], Tensor]:
        """`block(i, …)` without gradients, for many calls between which neither weights nor modules change."""
        return partial(self.block, i)

    @abstractmethod
    def skip_source(self, i: int) -> int | None:
        """The block whose output block `i` reads through a long skip, or None."""

    @abstractmethod
    def decode(self, state: Tensor) -> Tensor:
        """The output state of the last block → (B,C,H,W) noise prediction."""

    def ready_heads(self, heads: Sequence[nn.Module]) -> Callable[[Tensor, Tensor], Tensor] | None:
        """Heads and, as the last, `decode` in one: (n, …) states, (n,) the number of each one's head → (n,C,H,W).

        None where that is no faster than one after the other. As for `ready_block`.
        """
        return None

    @abstractmethod
    def patchify(self, image: Tensor) -> Tensor:
        """(B,C,H,W) → (B, image tokens, patch_dim): the values that each image token stands for."""

    @abstractmethod
    def unpatchify(self, values: Tensor) -> Tensor:
        """The inverse, (B, image tokens, patch_dim) → (B,C,H,W); of one value per token: → (B,1,h,w)."""

    @abstractmethod
    def make_head(self) -> nn.Module:
        """A fresh output head g_i: any block's input state → (B,C,H,W) noise prediction."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What `build_backbone` needs to rebuild this network."""

    def states(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Iterator[Tensor]:
        """The input state of block 0, 1, …, N−1, then the output state of block N−1 (N+1 in all)."""
        wanted = {self.skip_source(i) for i in range(self.num_blocks)} - {None}
        outputs: dict[int, Tensor] = {}
        state = self.embed(x, t, y)
        for i in range(self.num_blocks):
            yield state
            source = self.skip_source(i)
            state = self.block(i, state, None if source is None else outputs.pop(source))
            if i in wanted:
                outputs[i] = state
        yield state

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,C,H,W), (B,) → (B,C,H,W): the full network, no early exit."""
        *_, last = self.states(x, t, y)
        return self.decode(last)
