"""Output heads g_i: predictions from the input of each block, one class and one line of `HEADS` per kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import ClassVar

from torch import Tensor, nn

from deediff.models.backbone import Backbone


class OutputHeads(nn.ModuleList, ABC):
    """The output heads of exits 0 … N−1; exit N is always the backbone's own output."""

    kind: ClassVar[str]  # key of `HEADS`

    @classmethod
    @abstractmethod
    def build(cls, net: Backbone) -> OutputHeads:
        """Fresh heads for this backbone."""

    @abstractmethod
    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        """Input state (B, …) of block `layer`, timesteps (B,) → prediction (B,C,H,W)."""

    def train_layers(self, layers: Collection[int]) -> None:
        """Exclude the parameters of other layers' heads from training: no loss depends on them."""


class HeadPerExit(OutputHeads):
    """A head for each exit (DeeDiff)."""

    kind = "each"

    @classmethod
    def build(cls, net: Backbone) -> HeadPerExit:
        return cls(net.make_head() for _ in range(net.num_blocks))

    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        prediction: Tensor = self[layer](state)
        return prediction

    def train_layers(self, layers: Collection[int]) -> None:
        for i, head in enumerate(self):
            head.requires_grad_(i in layers)


class SharedHead(OutputHeads):
    """One head for all exits."""

    kind = "shared"

    @classmethod
    def build(cls, net: Backbone) -> SharedHead:
        return cls([net.make_head()])

    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        prediction: Tensor = self[0](state)
        return prediction


class DecoderHead(OutputHeads):
    """No head of its own: the backbone's last layers read out every exit (AdaDiff)."""

    kind = "decoder"

    @classmethod
    def build(cls, net: Backbone) -> DecoderHead:
        return cls()

    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        return net.decode(state)


HEADS: dict[str, type[OutputHeads]] = {kind.kind: kind for kind in (HeadPerExit, SharedHead, DecoderHead)}


def build_heads(kind: str, net: Backbone) -> OutputHeads:
    """Fresh output heads for a backbone. Raises ValueError for an unknown kind."""
    if kind not in HEADS:
        raise ValueError(f"the heads are {kind!r}, expected one of: {', '.join(HEADS)}")
    return HEADS[kind].build(net)
