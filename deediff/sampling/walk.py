"""One evaluation of the network with real exits: what has left is not computed any more.

A batch walks through the blocks together. After every block the policy is asked, those who leave are
set aside for their output head, and the rest is compacted at once. On a CPU the rows of a batch are
handed to a block in chunks that fit its cache; as samples leave, small chunks join.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.sampling.policies import ExitPolicy, Visit

Record = Literal["exit", "full"]
Rows = NDArray[np.int64]  # positions in a batch

CPU_CACHE = 2**20  # values of state per call of a block, the fastest per image on the CPUs measured …
CPU_CHUNK = 32  # … and at most this many rows
CPU_GROUP = 64  # samples that walk through the network together: bounds the memory of the long skips
GPU_LANES = 2  # groups whose blocks are queued in turn, so that the device never waits for a decision


@dataclass(frozen=True)
class Condition:
    """What a class-conditional model is asked for."""

    labels: Tensor  # (B,)
    guidance: float | None = None  # classifier-free guidance scale; None: without
    null_label: int = 0  # the label that means "no class"

    def rows(self) -> Tensor:
        """Labels of the rows of the network: (B,), or (2·B,) with guidance, sample and null label in turn."""
        if self.guidance is None:
            return self.labels
        return torch.stack([self.labels, torch.full_like(self.labels, self.null_label)], dim=1).flatten()

    def split(self, size: int) -> list[Condition]:
        """Of consecutive groups of samples."""
        return [Condition(part, self.guidance, self.null_label) for part in self.labels.split(size)]


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


@dataclass(eq=False)
class _Chunk:
    """Rows that are handed to a block in one call; they leave one by one, and small chunks join."""

    rows: Rows  # (n,) their positions in the batch, n ≥ 1
    state: Tensor  # (n, …) input of the next block; (2·n, …) with guidance
    skips: dict[int, list[tuple[Rows, Tensor]]]  # block → its output in pieces: the rows it was for, their states

    def join(self, other: _Chunk) -> None:
        """Take the rows of another chunk in; its pieces of the skips are only gathered when they are needed."""
        self.rows, self.state = np.concatenate([self.rows, other.rows]), torch.cat([self.state, other.state])
        for source, pieces in other.skips.items():
            self.skips[source] += pieces

    def take_skip(self, source: int, present: NDArray[np.bool_]) -> Tensor:
        """Output of block `source` for the rows that are still here; `present` (B,) says which of the batch are."""
        return _concatenate([_select(state, present[held]) for held, state in self.skips.pop(source)])


def _concatenate(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _select(values: Tensor, wanted: NDArray[np.bool_]) -> Tensor:
    """The wanted samples of (n, …) or, in pairs, (2·n, …): no copy when all are."""
    if wanted.all():
        return values
    index = torch.from_numpy(wanted.repeat(len(values) // len(wanted)).nonzero()[0])
    return values.index_select(0, index.to(values.device, non_blocking=True))


def _merge(chunks: list[_Chunk], size: int) -> list[_Chunk]:
    """Join the smallest chunks as long as two fit into one of `size` samples."""
    if len(chunks) < 2:
        return chunks
    chunks = sorted(chunks, key=lambda chunk: len(chunk.rows))
    while len(chunks) > 1 and len(chunks[0].rows) + len(chunks[1].rows) <= size:
        chunks[1].join(chunks[0])
        chunks = sorted(chunks[1:], key=lambda chunk: len(chunk.rows))
    return chunks


def _embed(model: EarlyExitModel, x: Tensor, t: Tensor, condition: Condition | None) -> tuple[list[_Chunk], int]:
    """The batch in equal chunks, and how many samples a chunk may hold."""
    copies = len(t) // len(x)
    labels = None if condition is None else condition.rows()
    state = model.backbone.embed(x if copies == 1 else x.repeat_interleave(copies, dim=0), t, labels)
    size = len(x)
    if x.device.type == "cpu":
        size = max(4, min(CPU_CHUNK, round(CPU_CACHE / model.backbone.state_size))) // copies
    parts = np.array_split(np.arange(len(x)), math.ceil(len(x) / size))
    states = state.split([copies * len(rows) for rows in parts])
    return [_Chunk(rows, part, {}) for rows, part in zip(parts, states, strict=True)], size


def walk(
    model: EarlyExitModel,
    x: Tensor,  # (B,C,H,W)
    policy: ExitPolicy,
    step: int,
    timestep: int,
    samples: NDArray[np.int64],  # (B,) sample numbers
    record: Record = "exit",
    deviations: bool = False,
    condition: Condition | None = None,
) -> Generator[None, None, Prediction]:
    """Run each block on the samples that are still in the network, and on no others.

    `record="full"` drops nobody, so that every UEM is asked, but answers as the policy would. Under
    guidance the two halves of a pair leave together, once both are certain: their u is the larger
    one. On a GPU it pauses before it needs a decision of the device: queue other work there.
    """
    batch, blocks, backbone = len(x), model.num_blocks, model.backbone
    asked_layers = model.uem.layers if model.uem is not None and (policy.needs_uncertainty or record == "full") else ()
    has_uem = [i in asked_layers for i in range(blocks + 1)]
    sources = {backbone.skip_source(i) for i in range(blocks)}
    exit_layer = np.full(batch, blocks)
    alive = np.ones(batch, dtype=np.bool_)
    present = alive if record == "exit" else np.ones(batch, dtype=np.bool_)  # who is still computed
    asked: list[tuple[int, Rows, Tensor]] = []  # layer, who was asked there, their u
    leavers: list[tuple[int, Rows, Tensor]] = []  # layer, rows, and the state that the head of that layer reads
    heads: list[Tensor] = []  # every layer's answer, for the deviations
    lowest: Tensor | None = None  # (k,) of u over the layers so far

    copies = 1 if condition is None or condition.guidance is None else 2  # rows of the network per sample
    t = torch.full((batch * copies,), timestep, device=x.device)
    chunks, size = _embed(model, x, t, condition)
    rows = np.arange(batch)  # of all chunks, in their order
    for i in range(blocks + 1):
        us: list[Tensor] = []
        for chunk in chunks:
            if i > 0:
                source = backbone.skip_source(i - 1)
                skip = None if source is None else chunk.take_skip(source, present)
                chunk.state = backbone.block(i - 1, chunk.state, skip)
                if i - 1 in sources:
                    chunk.skips[i - 1] = [(chunk.rows, chunk.state)]
            if has_uem[i]:  # while the state is in the cache
                us.append(model.uncertainty(i, chunk.state, t[: len(chunk.state)]))
        if deviations:
            heads.append(_read_out(model, i, [chunk.state for chunk in chunks], condition))
        if i == blocks:
            break
        u = None
        if us:
            u = _concatenate(us)
            if copies > 1:
                u = u.view(-1, copies).amax(dim=1)
            asked.append((i, rows, u))
        elif policy.needs_uncertainty:
            u = torch.full((len(rows),), torch.nan, device=x.device)  # no UEM here: below no threshold
        decision = policy.leaves(Visit(i, blocks, step, timestep, samples[rows], u, lowest))
        leaves: NDArray[np.bool_] | bool
        if isinstance(decision, Tensor):
            fetch = _to_host(decision)
            if decision.device.type == "cuda":
                yield
            leaves = fetch()
        else:
            leaves = decision
        if policy.needs_lowest and u is not None:
            lowest = u if lowest is None else torch.fmin(lowest, u)
        left = rows[alive[rows] & leaves]
        if not len(left):
            continue
        exit_layer[left], alive[left] = i, False
        for chunk in chunks:
            goes = exit_layer[chunk.rows] == i
            if goes.any():
                leavers.append((i, chunk.rows[goes], _select(chunk.state, goes)))
                if record == "exit":
                    chunk.rows, chunk.state = chunk.rows[~goes], _select(chunk.state, ~goes)
        if record == "exit":
            chunks = _merge([chunk for chunk in chunks if len(chunk.rows)], size)
            if not chunks:
                break
            before, rows = rows, np.concatenate([chunk.rows for chunk in chunks])
            if lowest is not None:
                place = np.empty(batch, dtype=np.int64)
                place[before] = np.arange(len(before))
                lowest = lowest[torch.from_numpy(place[rows]).to(lowest.device)]
    leavers += [(blocks, c.rows[alive[c.rows]], _select(c.state, alive[c.rows])) for c in chunks]
    return _collect(model, x, leavers, exit_layer, asked, heads, condition)


def _read_out(model: EarlyExitModel, layer: int, states: list[Tensor], condition: Condition | None) -> Tensor:
    """The answer of exit `layer` for all these: (n, …), … → (Σn,C,H,W), the two halves of a pair combined.

    Source of the combination: Ho & Salimans 2022, Eq. 6, with the scale's zero moved: 1 is no guidance.
    """
    answer = model.read_out(layer, _concatenate(states)).float()
    if condition is None or condition.guidance is None:
        return answer
    with_label, without = answer.unflatten(0, (-1, 2)).unbind(dim=1)
    return without + condition.guidance * (with_label - without)


def _collect(
    model: EarlyExitModel,
    x: Tensor,  # (B,C,H,W)
    leavers: list[tuple[int, Rows, Tensor]],
    exit_layer: NDArray[np.int64],  # (B,)
    asked: list[tuple[int, Rows, Tensor]],
    heads: list[Tensor],  # (N+1,) of (B,C,H,W), or empty
    condition: Condition | None,
) -> Prediction:
    """Run the output heads, one call per layer, and bring everything into the order of the batch."""
    answers = [
        _read_out(model, layer, [state for _, _, state in group], condition)
        for layer, group in itertools.groupby((one for one in leavers if len(one[1])), key=lambda one: one[0])
    ]
    order = torch.from_numpy(np.argsort(np.concatenate([rows for _, rows, _ in leavers])))
    output = _concatenate(answers).index_select(0, order.to(x.device))
    uncertainty = np.full((len(x), model.num_blocks), np.nan, dtype=np.float32)
    if asked:
        values = torch.cat([u for _, _, u in asked]).cpu().numpy()
        start = 0
        for layer, rows, _ in asked:
            uncertainty[rows, layer] = values[start : start + len(rows)]
            start += len(rows)
    deviation = None
    if heads:
        deviation = torch.stack([(g - heads[-1]).square().mean(dim=(1, 2, 3)).sqrt() for g in heads[:-1]], dim=1).cpu()
    return Prediction(output, torch.from_numpy(exit_layer), torch.from_numpy(uncertainty), deviation)


def _to_host(mask: Tensor) -> Callable[[], NDArray[np.bool_]]:
    """Start copying (k,) bool to the host; the answer waits only for what was queued before."""
    if mask.device.type != "cuda":
        return lambda: mask.cpu().numpy()
    host = torch.empty(mask.shape, dtype=torch.bool, pin_memory=True).copy_(mask, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def fetch() -> NDArray[np.bool_]:
        done.synchronize()
        return host.numpy()

    return fetch


def take_turns(walks: Sequence[Generator[None, None, Prediction]]) -> list[Prediction]:
    """Advance all walks in turn until each has ended."""
    done: dict[int, Prediction] = {}
    while len(done) < len(walks):
        for k, one in enumerate(walks):
            if k not in done:
                try:
                    next(one)
                except StopIteration as end:
                    done[k] = end.value
    return [done[k] for k in range(len(walks))]


def predict(
    model: EarlyExitModel,
    x: Tensor,  # (B,C,H,W)
    policy: ExitPolicy,
    step: int,
    timestep: int,
    samples: NDArray[np.int64],  # (B,) sample numbers
    record: Record = "exit",
    deviations: bool = False,
    condition: Condition | None = None,
) -> Prediction:
    """One evaluation of the network, with the batch cut as suits the device."""
    if x.device.type == "cpu":
        size, lanes = CPU_GROUP, 1
    else:
        size, lanes = math.ceil(len(x) / GPU_LANES), GPU_LANES
    if policy.decides_for_batch:
        size = len(x)
    numbers = np.split(samples, range(size, len(x), size))
    conditions = condition.split(size) if condition is not None else [None] * len(numbers)
    walks = [
        walk(model, part, policy, step, timestep, numbers[k], record, deviations, conditions[k])
        for k, part in enumerate(x.split(size))
    ]
    parts = [p for k in range(0, len(walks), lanes) for p in take_turns(walks[k : k + lanes])]
    if len(parts) == 1:
        return parts[0]
    deviation = [p.deviation for p in parts if p.deviation is not None]
    return Prediction(
        torch.cat([p.output for p in parts]),
        torch.cat([p.exit_layer for p in parts]),
        torch.cat([p.uncertainty for p in parts]),
        torch.cat(deviation) if deviation else None,
    )
