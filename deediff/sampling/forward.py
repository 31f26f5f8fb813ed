"""One evaluation of the network with real exits: what has left is not computed any more.

A batch goes through the blocks in chunks. Before every block the policy is asked; those who leave are
set aside for their output head, and the rest of the chunk is compacted. Who advances which chunk when
does not change the result: see `predict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deediff.policies.base import LayerState
from deediff.sampling.micro_batch import Chunk, Rows, concatenate, gather
from deediff.sampling.network import Network
from deediff.sampling.request import Request

Leavers = tuple[Rows, Tensor]  # rows that leave at one layer, and the states that its head reads


@dataclass(frozen=True)
class Prediction:
    """What one evaluation of the network gave, per sample."""

    output: Tensor  # (B,C,H,W) what the network predicts: ε, x_0 or v
    exit_layer: Tensor  # (B,) int64 on the CPU, 0 … N
    uncertainty: Tensor  # (B,N) float32 on the CPU; NaN where no UEM was evaluated
    deviation: Tensor | None  # (B,N) RMS(g_i − full output), when asked for

    def padded(self, num_blocks: int) -> Prediction:
        """The same, as if it came from a network with more blocks: u is NaN there."""
        missing = num_blocks - self.uncertainty.shape[1]
        return replace(self, uncertainty=F.pad(self.uncertainty, (0, missing), value=torch.nan))

    @staticmethod
    def concatenate(parts: list[Prediction]) -> Prediction:
        """Of consecutive groups of samples."""
        deviation = [p.deviation for p in parts if p.deviation is not None]
        return Prediction(
            torch.cat([p.output for p in parts]),
            torch.cat([p.exit_layer for p in parts]),
            torch.cat([p.uncertainty for p in parts]),
            torch.cat(deviation) if deviation else None,
        )


class Walk:
    """The way of some samples through the network at one denoising step.

    Take `chunks`; `advance` and `settle` each in turn until it is empty; `read_out` all who left; `collect`.
    Different chunks may be advanced and settled by different threads at once. `record="full"` drops
    nobody, so that every UEM is asked, but answers as the policy would. Under guidance the two halves
    of a pair leave together, once both are certain: their u is the larger one.
    """

    def __init__(self, network: Network, x: Tensor, request: Request):  # x: (B,C,H,W)
        batch, blocks, policy, condition = len(x), network.num_blocks, request.policy, request.condition
        self.network, self.x, self.policy, self.step, self.timestep = network, x, policy, request.step, request.timestep
        self.samples, self.record, self.deviations = request.samples, request.record, request.deviations
        self.guidance = None if condition is None else condition.guidance
        self.labels = None if condition is None else condition.rows()
        self.copies = 1 if self.guidance is None else 2  # rows of the network per sample
        self.t = torch.full((batch * self.copies,), self.timestep, device=x.device)
        asks = policy.needs_uncertainty or self.record == "full"
        self.asked_layers = network.asked_layers if asks else frozenset[int]()
        self.exit_layer = np.full(batch, blocks)
        self.alive = np.ones(batch, dtype=np.bool_)
        self.present = self.alive if self.record == "exit" else np.ones(batch, dtype=np.bool_)  # who is still computed
        self.asked: list[tuple[int, Rows, Tensor]] = []  # layer, who was asked there, their u
        self.answers: list[tuple[Rows, Tensor]] = []  # what the heads said
        self.deviation: list[tuple[Rows, Tensor]] = []

    def chunks(self, count: int) -> list[Chunk]:
        """The batch in `count` chunks of about the same size."""
        parts = np.array_split(np.arange(len(self.x)), count)
        images = self.x.split([len(rows) for rows in parts])
        return [Chunk(rows, part) for rows, part in zip(parts, images, strict=True)]

    def advance(self, chunk: Chunk) -> None:
        """Run the next block on a chunk, ask the UEM behind it, and let the policy decide; wait for no device."""
        network = self.network
        i = chunk.layer = chunk.layer + 1
        if i == 0:
            chunk.state = self._embed(chunk)
        else:
            source = network.skip_source[i - 1]
            skip = None if source is None else chunk.take_skip(source, self.present)
            chunk.state = network.block[i - 1](chunk.state, skip)
            if network.is_source[i - 1]:
                chunk.skips[i - 1] = [(chunk.rows, chunk.state)]
        if self.deviations:
            chunk.heads.append(self._combined(network.head(i, chunk.state)))
        chunk.decision = _to_host(self._decide(i, chunk)) if i < network.num_blocks else None

    def _embed(self, chunk: Chunk) -> Tensor:
        """The images of a chunk → the input of block 0, each twice with guidance."""
        images = chunk.state if self.copies == 1 else chunk.state.repeat_interleave(self.copies, dim=0)
        labels = self.labels
        if labels is not None:  # chunks that joined before are in any order
            labels = labels.view(-1, self.copies)[torch.from_numpy(chunk.rows)].flatten()
        return self.network.embed(images, self.t[: len(images)], labels)

    def _decide(self, i: int, chunk: Chunk) -> Tensor | bool:
        """Which of a chunk leave at layer i, by the policy."""
        u = None
        if i in self.asked_layers:
            u = self.network.uncertainty(i, chunk.state, self.t[: len(chunk.state)])
            if self.copies > 1:
                u = u.view(-1, self.copies).amax(dim=1)
            self.asked.append((i, chunk.rows, u))
        elif self.policy.needs_uncertainty:
            u = torch.full((len(chunk),), torch.nan, device=self.x.device)  # no UEM here: below no threshold
        blocks, samples = self.network.num_blocks, self.samples[chunk.rows]
        state = LayerState(i, blocks, self.step, self.timestep, samples, u, chunk.lowest)
        decision = self.policy.should_exit(state)
        if self.policy.needs_lowest_uncertainty and i in self.asked_layers and u is not None:
            chunk.lowest = u if chunk.lowest is None else torch.fmin(chunk.lowest, u)
        return decision

    def settle(self, chunk: Chunk) -> Leavers | None:
        """Those who leave here, if any; unless everything is recorded, they are dropped from the chunk."""
        if chunk.decision is None:
            return self._end(chunk)
        leaves = chunk.decision()
        if leaves is False:
            return None
        if leaves is True:
            leaves = np.ones(len(chunk), dtype=np.bool_)
        if self.record == "full":
            leaves = leaves & self.alive[chunk.rows]
        going = leaves.nonzero()[0]
        if not len(going):
            return None
        leavers = self._leave(chunk, going)
        if self.record == "exit":
            chunk.keep((~leaves).nonzero()[0])
        return leavers

    def _end(self, chunk: Chunk) -> Leavers | None:
        """The network's own output, for those who have not left before."""
        if chunk.heads:
            errors = [(g - chunk.heads[-1]).square().mean(dim=(1, 2, 3)).sqrt() for g in chunk.heads[:-1]]
            self.deviation.append((chunk.rows, torch.stack(errors, dim=1)))
        going = self.alive[chunk.rows].nonzero()[0]
        leavers = self._leave(chunk, going) if len(going) else None
        chunk.rows = chunk.rows[:0]
        return leavers

    def _leave(self, chunk: Chunk, going: Rows) -> Leavers:
        """Give those who leave, (n,) of the chunk, their exit layer."""
        rows = chunk.rows[going]
        self.exit_layer[rows], self.alive[rows] = chunk.layer, False
        return rows, gather(chunk.state, going, len(chunk))

    def read_out(self, left: list[tuple[int, Leavers]]) -> None:
        """Run the output heads on some who left, with the layer where they did."""
        left = sorted(left, key=lambda each: each[0])
        answer = self._combined(self.network.read_out([(layer, state) for layer, (_, state) in left]))
        self.answers.append((np.concatenate([rows for _, (rows, _) in left]), answer))

    def _combined(self, answer: Tensor) -> Tensor:
        """The two halves of each pair as one answer: (n, …) or, under guidance, (2·n, …) → (n,C,H,W).

        Source of the combination: Ho & Salimans 2022, Eq. 6, with the scale's zero moved: 1 is no guidance.
        """
        if self.guidance is None:
            return answer.float()
        with_label, without = answer.float().unflatten(0, (-1, 2)).unbind(dim=1)
        return without + self.guidance * (with_label - without)

    def collect(self) -> Prediction:
        """Everything in the order of the batch."""
        uncertainty = np.full((len(self.x), self.network.num_blocks), np.nan, dtype=np.float32)
        if self.asked:
            values = torch.cat([u for _, _, u in self.asked]).cpu().numpy()
            start = 0
            for layer, rows, _ in self.asked:
                uncertainty[rows, layer] = values[start : start + len(rows)]
                start += len(rows)
        deviation = _in_order(self.deviation).cpu() if self.deviation else None
        exit_layer = torch.from_numpy(self.exit_layer)
        return Prediction(_in_order(self.answers), exit_layer, torch.from_numpy(uncertainty), deviation)


def _in_order(pieces: list[tuple[Rows, Tensor]]) -> Tensor:
    """Values of rows of the batch, in pieces → (B, …)."""
    order = torch.from_numpy(np.argsort(np.concatenate([rows for rows, _ in pieces])))
    values = concatenate([part for _, part in pieces])
    return values.index_select(0, order.to(values.device))


def _to_host(decision: Tensor | bool) -> Callable[[], NDArray[np.bool_] | bool]:
    """Start copying (k,) bool to the host; the answer waits only for what was queued before."""
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
