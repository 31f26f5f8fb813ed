"""Output heads g_i: predictions from the input of each block, one class and one line of `HEADS` per way to share them.

The kinds of a single head are in `head.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from deediff.models.backbone import Backbone
from deediff.models.head import HEAD_KINDS, read_head


class OutputHeads(nn.ModuleList, ABC):
    """The output heads of exits 0 … N−1; exit N is always the backbone's own output."""

    kind: ClassVar[str]  # key of `HEADS`
    head = "linear"  # key of `HEAD_KINDS`

    @classmethod
    @abstractmethod
    def build(cls, net: Backbone, make_head: Callable[[int], nn.Module]) -> OutputHeads:
        """Fresh heads for this backbone; `make_head` makes one of a layer, to be called by `read_head`."""

    @abstractmethod
    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        """Input state (B, …) of block `layer`, timesteps (B,) → prediction (B,C,H,W)."""

    def train_layers(self, layers: Collection[int]) -> None:
        """Exclude the parameters of other layers' heads from training: no loss depends on them."""


class HeadPerExit(OutputHeads):
    """A head for each exit (DeeDiff)."""

    kind = "each"

    @classmethod
    def build(cls, net: Backbone, make_head: Callable[[int], nn.Module]) -> HeadPerExit:
        return cls(make_head(layer) for layer in range(net.num_blocks))

    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        return read_head(self[layer], state, t)

    def train_layers(self, layers: Collection[int]) -> None:
        for i, head in enumerate(self):
            head.requires_grad_(i in layers)


class SharedHead(OutputHeads):
    """One head for all exits."""

    kind = "shared"

    @classmethod
    def build(cls, net: Backbone, make_head: Callable[[int], nn.Module]) -> SharedHead:
        check_uniform(net, cls.kind)
        return cls([make_head(0)])

    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        return read_head(self[0], state, t)


class DecoderHead(OutputHeads):
    """No head of its own: the backbone's last layers read out every exit (AdaDiff)."""

    kind = "decoder"

    @classmethod
    def build(cls, net: Backbone, make_head: Callable[[int], nn.Module]) -> DecoderHead:
        check_uniform(net, cls.kind)
        return cls()

    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        return net.decode(state)


def check_uniform(net: Backbone, kind: str) -> None:
    """Raises ValueError if one head cannot read the states of all layers."""
    if not net.is_uniform:
        raise ValueError(
            f"the states of a {type(net).__name__} differ in shape, so heads {kind!r} cannot read all: use 'each'"
        )


HEADS: dict[str, type[OutputHeads]] = {kind.kind: kind for kind in (HeadPerExit, SharedHead, DecoderHead)}


def build_heads(kind: str, net: Backbone, head: str = "linear", num_timesteps: int = 1000) -> OutputHeads:
    """Fresh output heads for a backbone: a key of `HEADS`, and a key of `HEAD_KINDS`. Raises ValueError for others."""
    if kind not in HEADS:
        raise ValueError(f"the heads are {kind!r}, expected one of: {', '.join(HEADS)}")
    if HEADS[kind] is DecoderHead and head != "linear":
        raise ValueError(f"heads 'decoder' are the network's own last layers, which cannot be {head!r}: leave head out")
    if head not in HEAD_KINDS:
        raise ValueError(f"the head is {head!r}, expected one of: {', '.join(HEAD_KINDS)}")
    heads = HEADS[kind].build(net, partial(HEAD_KINDS[head], net, num_timesteps))
    heads.head = head
    return heads
