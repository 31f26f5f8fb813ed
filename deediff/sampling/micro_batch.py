"""Rows of a batch that go through the network together; samples leave one by one, and chunks join or split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.int64]  # positions in a batch


@dataclass(eq=False)
class Chunk:
    """Rows that are handed to a block in one call."""

    rows: Rows  # (n,) their positions in the batch
    state: Tensor  # (n, …) input of the next block, (2·n, …) with guidance; before layer 0: the images
    layer: int = -1  # blocks run so far; −1: not even embedded
    skips: dict[int, list[tuple[Rows, Tensor]]] = field(default_factory=dict)
    """block → its output in pieces: the rows it was for, their states."""
    lowest: Tensor | None = None  # (n,) smallest u so far, for policies that need it
    heads: list[Tensor] = field(default_factory=list)  # every layer's answer, for the deviations
    decision: Callable[[], NDArray[np.bool_] | bool] | None = None  # who leaves at `layer`: waits for the device

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, staying: Rows) -> None:
        """Only these of the rows stay; the skips are compacted when they are needed."""
        count = len(self)
        self.rows, self.state = self.rows[staying], gather(self.state, staying, count)
        if self.lowest is not None:
            self.lowest = gather(self.lowest, staying, count)

    def join(self, others: list[Chunk]) -> None:
        """Take in the rows of other chunks at the same layer."""
        if not others:
            return
        all_of = [self, *others]
        self.rows = np.concatenate([chunk.rows for chunk in all_of])
        self.state = torch.cat([chunk.state for chunk in all_of])
        if self.lowest is not None:
            self.lowest = torch.cat([chunk.lowest for chunk in all_of if chunk.lowest is not None])
        for other in others:
            for source, pieces in other.skips.items():
                self.skips[source] += pieces

    def split(self, present: NDArray[np.bool_]) -> Chunk:
        """Give away the second half of the rows; `present` as for `take_skip`."""
        half, copies = len(self) // 2, len(self.state) // len(self)
        other = Chunk(self.rows[half:], self.state[copies * half :], self.layer)
        for source in list(self.skips):
            skip = self.take_skip(source, present)
            self.skips[source] = [(self.rows[:half], skip[: copies * half])]
            other.skips[source] = [(other.rows, skip[copies * half :])]
        if self.lowest is not None:
            self.lowest, other.lowest = self.lowest[:half], self.lowest[half:]
        self.rows, self.state = self.rows[:half], self.state[: copies * half]
        return other

    def take_skip(self, source: int, present: NDArray[np.bool_]) -> Tensor:
        """Output of block `source` for the rows that are still here; `present` (B,) says which of the batch are."""
        pieces = self.skips.pop(source)
        return concatenate([gather(state, present[held].nonzero()[0], len(held)) for held, state in pieces])


def concatenate(parts: list[Tensor]) -> Tensor:
    """No copy when there is only one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def gather(values: Tensor, wanted: Rows, count: int) -> Tensor:
    """The wanted of `count` samples, in (count, …) or, in pairs, (2·count, …): no copy when all are."""
    if len(wanted) == count:
        return values
    index = torch.from_numpy(wanted if len(values) == count else np.stack([2 * wanted, 2 * wanted + 1], axis=1).ravel())
    return values.index_select(0, index if values.device.type == "cpu" else index.to(values.device, non_blocking=True))
