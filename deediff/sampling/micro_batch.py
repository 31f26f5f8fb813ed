"""Micro-batches: rows of a batch that run through the network together, until they exit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.int64]  # positions in a batch


@dataclass(eq=False)
class MicroBatch:
    """Rows that a block processes in one call."""

    rows: Rows  # (n,) their positions in the batch
    state: Tensor  # (n, …) input of the next block, (2·n, …) with guidance; before layer 0: the images
    layer: int = -1  # number of blocks run; −1: before the embedding
    skips: dict[int, list[tuple[Rows, Tensor]]] = field(default_factory=dict)
    """Block → its output in pieces, each with its rows; compacted when a later block reads it through a long skip."""
    lowest: Tensor | None = None  # (n,) smallest u so far, for policies that read it
    outputs: list[Tensor] = field(default_factory=list)  # (n,C,H,W) of every layer so far, for the deviations
    decision: Callable[[], NDArray[np.bool_] | bool] | None = None  # rows that exit at `layer`; waits for the device

    def __len__(self) -> int:
        return len(self.rows)

    def keep(self, staying: Rows) -> None:
        """Drop all rows but these (k,)."""
        count = len(self)
        self.rows, self.state = self.rows[staying], gather(self.state, staying, count)
        if self.lowest is not None:
            self.lowest = gather(self.lowest, staying, count)

    def join(self, others: list[MicroBatch]) -> None:
        """Take in the rows of other micro-batches at the same layer."""
        parts = [self, *others]
        self.rows = np.concatenate([part.rows for part in parts])
        self.state = torch.cat([part.state for part in parts])
        if self.lowest is not None:
            self.lowest = torch.cat([part.lowest for part in parts if part.lowest is not None])
        for other in others:
            for source, pieces in other.skips.items():
                self.skips[source] += pieces

    def split(self, present: NDArray[np.bool_]) -> MicroBatch:
        """Give away the second half of the rows; `present` (B,) marks the remaining rows of the whole batch."""
        half, copies = len(self) // 2, len(self.state) // len(self)
        other = MicroBatch(self.rows[half:], self.state[copies * half :], self.layer)
        for source in list(self.skips):
            skip = self.take_skip(source, present)
            self.skips[source] = [(self.rows[:half], skip[: copies * half])]
            other.skips[source] = [(other.rows, skip[copies * half :])]
        if self.lowest is not None:
            self.lowest, other.lowest = self.lowest[:half], self.lowest[half:]
        self.rows, self.state = self.rows[:half], self.state[: copies * half]
        return other

    def take_skip(self, source: int, present: NDArray[np.bool_]) -> Tensor:
        """Output of block `source` for the remaining rows; `present` (B,) marks those of the whole batch."""
        skip = self.rows_of(source, present)
        del self.skips[source]
        return skip

    def rows_of(self, source: int, wanted: NDArray[np.bool_]) -> Tensor:
        """Output of block `source` for some rows; `wanted` (B,) marks them among those of the whole batch."""
        pieces = [gather(state, wanted[rows].nonzero()[0], len(rows)) for rows, state in self.skips[source]]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def gather(values: Tensor, wanted: Rows, count: int) -> Tensor:
    """Rows `wanted` of (count, …), or pairs of rows of (2·count, …); no copy when all are wanted."""
    if len(wanted) == count:
        return values
    index = torch.from_numpy(wanted if len(values) == count else np.stack([2 * wanted, 2 * wanted + 1], axis=1).ravel())
    return values.index_select(0, index if values.device.type == "cpu" else index.to(values.device, non_blocking=True))


def in_order(pieces: list[tuple[Rows, Tensor]]) -> Tensor:
    """Values of all rows of a batch, in pieces → (B, …)."""
    order = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in pieces])))
    values = torch.cat([part for _, part in pieces])
    return values.index_select(0, order.to(values.device))


def to_host(decision: Tensor | bool) -> Callable[[], NDArray[np.bool_] | bool]:
    """Start copying (n,) bool to the host; the returned function waits only for work queued before the copy."""
    if isinstance(decision, bool):
        return lambda: decision
    if decision.device.type != "cuda":
        return lambda: decision.cpu().numpy()
    host = torch.empty(decision.shape, dtype=torch.bool, pin_memory=True).copy_(decision, non_blocking=True)
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(decision.device))

    def fetch() -> NDArray[np.bool_]:
        done.synchronize()
        return host.numpy()

    return fetch
