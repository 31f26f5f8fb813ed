"""Readouts that run some blocks on the present x and take the others from the sample's last full evaluations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deediff.cost.cost import Cost
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.readouts.extrapolation import ORDERS


class StateReadout(ABC):
    """Reads out an exit from its state h_i and from what the last full evaluations stored. `spec` is its text."""

    spec: str
    order: int  # of the extrapolation: order + 1 evaluations are stored

    @abstractmethod
    def kept_layers(self, exits: Collection[int], num_blocks: int) -> set[int]:
        """The layers whose state a full evaluation hands to `kept`, for exits at these layers."""

    @abstractmethod
    def kept(self, states: Mapping[int, Tensor], layers: Collection[int], num_blocks: int) -> dict[int, Tensor]:
        """Layer → state (n, …), layer N included, for some of `kept_layers` → key → what is stored (n, …)."""

    @abstractmethod
    def resumed(self, state: Tensor, stored: Sequence[Tensor]) -> Tensor:
        """(n, …) the state with which block `resume_layer` goes on, from that of the exit.

        `stored` holds for every evaluation its weight times what was stored (n, …): their sum extrapolates.
        """

    def stored_key(self, layer: int, num_blocks: int) -> int:
        """The key that `resumed` reads for an exit at this layer."""
        return layer

    def resume_layer(self, num_blocks: int) -> int:
        """The block that runs next; N: the decoder."""
        return num_blocks

    def gflops(self, cost: Cost, layer: int) -> float:
        """GFLOPs of reading out an exit at this layer, for one image; NaN where it cannot."""
        return sum(cost.blocks[self.resume_layer(len(cost.blocks)) :]) + cost.decode

    def check(self, model: EarlyExitModel, exits: Collection[int]) -> None:  # noqa: B027
        """Raises UserError when this model, or a policy that exits at these layers, does not fit."""


class Memory(StateReadout):
    """ε̂ = decode(h_i + R̃_i), R̃_i the residual h_N − h_i extrapolated over the sample's last full evaluations.

    Order 0 is that of the last one (as in first-block cache, at any layer), higher orders are TaylorSeer's in log-SNR.
    """

    def __init__(self, order: int):
        self.order, self.spec = check_order("memory", order), f"memory:{order}"

    def kept_layers(self, exits: Collection[int], num_blocks: int) -> set[int]:
        return set(exits)

    def kept(self, states: Mapping[int, Tensor], layers: Collection[int], num_blocks: int) -> dict[int, Tensor]:
        return {layer: states[num_blocks] - states[layer] for layer in layers}

    def resumed(self, state: Tensor, stored: Sequence[Tensor]) -> Tensor:
        for part in stored:
            state = state + part
        return state

    def check(self, model: EarlyExitModel, exits: Collection[int]) -> None:
        net, last = model.backbone, model.backbone.layer_shape(model.num_blocks)
        possible = exits or (range(model.num_blocks) if model.uem is None else model.uem.layers)
        if different := sorted(i for i in possible if net.layer_shape(i) != last):
            raise UserError(
                f"readout {self.spec} adds the state of an exit to one of the last layer, whose shape differs from "
                f"that of layer {different[0]}: exit at layers of its shape, or use the readout deep:j"
            )


class Deep(StateReadout):
    """Blocks 0 … j−1 and N−j … N−1 run, the state between them is that of the last full evaluation (DeepCache).

    Ma et al. 2024, arXiv 2312.00858. The last blocks read the long skips of the first ones, at the present x.
    """

    order = 0

    def __init__(self, layer: int):
        if layer < 1:
            raise UserError(f"readout deep:{layer} runs {layer} blocks on each side, expected 1 or more")
        self.layer, self.spec = layer, f"deep:{layer}"

    def kept_layers(self, exits: Collection[int], num_blocks: int) -> set[int]:
        return {num_blocks - self.layer}

    def kept(self, states: Mapping[int, Tensor], layers: Collection[int], num_blocks: int) -> dict[int, Tensor]:
        return {-layer: states[layer] for layer in layers}

    def stored_key(self, layer: int, num_blocks: int) -> int:
        return self.layer - num_blocks

    def resumed(self, state: Tensor, stored: Sequence[Tensor]) -> Tensor:
        return stored[-1]

    def resume_layer(self, num_blocks: int) -> int:
        return num_blocks - self.layer

    def gflops(self, cost: Cost, layer: int) -> float:
        return super().gflops(cost, layer) if layer == self.layer else float("nan")

    def check(self, model: EarlyExitModel, exits: Collection[int]) -> None:
        net, blocks = model.backbone, model.num_blocks
        if exits and min(exits) > self.layer:
            raise UserError(
                f"readout {self.spec} reads out exits at layer {self.layer}, the policy's are at {min(exits)}"
            )
        sources = [net.skip_source(i) for i in range(blocks - self.layer, blocks)]
        if all(net.skip_source(i) is None for i in range(blocks)):
            raise UserError(f"readout {self.spec} needs long skips between blocks, and this backbone has none")
        if None in sources or max(source for source in sources if source is not None) >= self.layer:
            raise UserError(
                f"readout {self.spec} runs {self.layer} blocks on each side, but this backbone's long skips join the "
                f"first and last {sum(net.skip_source(i) is not None for i in range(blocks))}: choose a smaller number"
            )


def check_order(name: str, order: int) -> int:
    """The order of an extrapolation. Raises UserError when it is not one of ORDERS."""
    if order not in ORDERS:
        raise UserError(f"readout {name}:{order} has order {order}, expected 0, 1 or 2")
    return order


def weighted(stored: Tensor, weights: Tensor) -> Tensor:
    """(n, …) × (n,) → (n, …), in the precision of `stored`."""
    return stored * weights.to(stored.dtype).view(-1, *[1] * (stored.ndim - 1))


def memory_table(model: EarlyExitModel) -> list[dict[str, Any]]:
    """Bytes that one sample's memory takes in float32, per readout, for exits at one layer and at all; guidance: twice.

    They are constant over steps, and a batch takes them once per sample.
    """
    rows = list[dict[str, Any]]()
    readouts: list[StateReadout] = [*map(Memory, ORDERS), Deep(1)]
    for readout in readouts:
        evaluations, size = readout.order + 1, model.backbone.state_size * torch.float32.itemsize
        for layers in (1, model.num_blocks) if isinstance(readout, Memory) else (1,):
            name = readout.spec if isinstance(readout, Memory) else "deep:j"
            stored = {"readout": name, "exit_layers": layers, "evaluations": evaluations}
            rows.append({**stored, "bytes_per_sample": layers * evaluations * size})
    return rows
