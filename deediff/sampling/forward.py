"""One evaluation of the network with real exits: later blocks run without the samples that have exited.

`predict` sends a batch through a `ForwardPass` in micro-batches. Before each block the policy decides which samples
exit; these are set aside for their output head, and the micro-batch is compacted. The result does not depend on the
order in which micro-batches are advanced: see `_on_gpu`, and `deediff.sampling.cpu`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.models.cpu.mlp_uem import prepared_uem
from deediff.models.cpu.uvit_block import prepared_block
from deediff.policies.base import ExitPolicy, LayerState
from deediff.sampling.cpu import CPU_GROUP, one_thread, run_on_cpu
from deediff.sampling.micro_batch import MicroBatch, Rows, gather, in_order, to_host
from deediff.settings import Record

GPU_MICRO_BATCHES = 2  # while the host waits for the decision of one, the device computes the other


@dataclass(frozen=True)
class Condition:
    """Classes of a class-conditional model."""

    labels: Tensor  # (B,)
    guidance: float | None = None  # scale of classifier-free guidance; None: without
    null_label: int = 0  # the label that means "no class"

    def rows(self) -> Tensor:
        """Labels of the network's rows: (B,), or with guidance (2·B,), label and null label of each sample in turn."""
        if self.guidance is None:
            return self.labels
        return torch.stack([self.labels, torch.full_like(self.labels, self.null_label)], dim=1).flatten()

    def combine(self, output: Tensor) -> Tensor:
        """Classifier-free guidance: (n, …), or with guidance (2·n, …) in the order of `rows` → (n,C,H,W) float32.

        Source: Ho & Salimans 2022, Eq. 6, where a scale of 0 is no guidance; here it is 1.
        """
        if self.guidance is None:
            return output.float()
        with_label, without = output.float().unflatten(0, (-1, 2)).unbind(dim=1)
        return without + self.guidance * (with_label - without)

    def split(self, size: int) -> list[Condition]:
        """Conditions of consecutive groups of `size` samples."""
        return [replace(self, labels=labels) for labels in self.labels.split(size)]


@dataclass(frozen=True)
class Request:
    """Arguments of one evaluation, beside the images: B samples at one denoising step."""

    policy: ExitPolicy
    step: int
    timestep: int  # diffusion t
    samples: NDArray[np.int64]  # (B,) sample numbers
    record: Record = "exit"  # "full": no sample is dropped, so that every UEM is evaluated
    deviations: bool = False  # every head is evaluated too, and compared with the full network
    condition: Condition | None = None

    def split(self, size: int) -> list[Request]:
        """Requests of consecutive groups of `size` samples."""
        samples = np.split(self.samples, range(size, len(self.samples), size))
        conditions = [None] * len(samples) if self.condition is None else self.condition.split(size)
        return [replace(self, samples=s, condition=c) for s, c in zip(samples, conditions, strict=True)]


@dataclass(frozen=True)
class Prediction:
    """Result of one evaluation, per sample."""

    output: Tensor  # (B,C,H,W) prediction of ε, x_0 or v
    exit_layer: Tensor  # (B,) int64 on the CPU, 0 … N
    uncertainty: Tensor  # (B,N) float32 on the CPU; NaN where no UEM was evaluated
    deviation: Tensor | None  # (B,N) RMS(g_i − full output), if requested

    def padded(self, num_blocks: int) -> Prediction:
        """The prediction with u of a deeper network's shape, (B,num_blocks): NaN at the layers that this one lacks."""
        missing = num_blocks - self.uncertainty.shape[1]
        return replace(self, uncertainty=F.pad(self.uncertainty, (0, missing), value=torch.nan))

    @staticmethod
    def concatenate(parts: list[Prediction]) -> Prediction:
        """Predictions of consecutive groups of samples as one."""
        deviation = [p.deviation for p in parts if p.deviation is not None]
        return Prediction(
            torch.cat([p.output for p in parts]),
            torch.cat([p.exit_layer for p in parts]),
            torch.cat([p.uncertainty for p in parts]),
            torch.cat(deviation) if deviation else None,
        )


class Network:
    """A model prepared for many evaluations, between which its weights do not change."""

    def __init__(self, model: EarlyExitModel):
        net, self.model, self.num_blocks = model.backbone, model, model.num_blocks
        self.blocks = [prepared_block(net, i) for i in range(self.num_blocks)]
        self.skip_source = [net.skip_source(i) for i in range(self.num_blocks)]
        self.uems = {} if model.uem is None else {i: prepared_uem(model, i) for i in model.uem.layers}


def predict(
    model: EarlyExitModel | Network,
    x: Tensor,  # (B,C,H,W)
    request: Request,
    threads: int | None = None,  # CPU threads to use, by a caller inside `one_thread`; None: as many as torch has
) -> Prediction:
    """Evaluate the network on a batch; each block runs only on the samples that have not exited before it."""
    if threads is None:
        with one_thread() as threads:
            return predict(model, x, request, threads)
    network = model if isinstance(model, Network) else Network(model)
    on_cpu = x.device.type == "cpu"
    size = CPU_GROUP if on_cpu and not request.policy.decides_for_batch else len(x)
    parts = []
    for images, part in zip(x.split(size), request.split(size), strict=True):
        forward = ForwardPass(network, images, part)
        if on_cpu:
            run_on_cpu(forward, threads)
        else:
            _on_gpu(forward)
        parts.append(forward.collect())
    return parts[0] if len(parts) == 1 else Prediction.concatenate(parts)


def _on_gpu(forward: ForwardPass) -> None:
    """Advance the micro-batches in turn, so that the device always has the blocks of one queued."""
    count = 1 if forward.request.policy.decides_for_batch else min(GPU_MICRO_BATCHES, len(forward.x))
    queue, exited = deque(forward.micro_batches(count)), list[Exited]()
    for micro_batch in queue:
        forward.advance(micro_batch)
    while queue:
        micro_batch = queue.popleft()
        if (exits := forward.apply_exits(micro_batch)) is not None:
            exited.append(exits)
        if len(micro_batch):
            forward.advance(micro_batch)
            queue.append(micro_batch)
    forward.read_out(exited)


class Exited(NamedTuple):
    """Samples that exited at one layer, before their output head is evaluated."""

    layer: int  # 0 … N
    rows: Rows  # (n,) positions in the batch
    state: Tensor  # (n, …) input of the head, (2·n, …) with guidance


class ForwardPass:
    """The forward pass of one batch at one denoising step.

    For each of `micro_batches`, call `advance` and `apply_exits` in turn until it is empty; `read_out` everything that
    exited; then `collect`. Different micro-batches may be advanced by different threads at the same time. With
    `record="full"` no sample is dropped, but the result is that of the exits which the policy decides. With guidance,
    the two rows of a sample exit together: its u is the larger of theirs.
    """

    def __init__(self, network: Network, x: Tensor, request: Request):  # x: (B,C,H,W)
        batch, condition = len(x), request.condition
        self.network, self.x, self.request = network, x, request
        self.labels = None if condition is None else condition.rows()
        self.copies = 1 if condition is None or condition.guidance is None else 2  # rows of the network per sample
        self.t = torch.full((batch * self.copies,), request.timestep, device=x.device)
        reads_uncertainty = request.policy.needs_uncertainty or request.record == "full"
        uem = network.model.uem
        self.queried_layers = uem.layers if uem is not None and reads_uncertainty else ()
        self.exit_layer = np.full(batch, network.num_blocks)
        self.active = np.ones(batch, dtype=np.bool_)  # (B,) samples that have not exited
        self.present = self.active if request.record == "exit" else np.ones_like(self.active)  # (B,) still computed
        self.uncertainty: list[tuple[int, Rows, Tensor]] = []  # layer, rows, their u
        self.outputs: list[tuple[Rows, Tensor]] = []
        self.deviation: list[tuple[Rows, Tensor]] = []

    def micro_batches(self, count: int) -> list[MicroBatch]:
        """The batch in `count` micro-batches of about the same size."""
        parts = np.array_split(np.arange(len(self.x)), count)
        images = self.x.split([len(rows) for rows in parts])
        return [MicroBatch(rows, part) for rows, part in zip(parts, images, strict=True)]

    def advance(self, mb: MicroBatch) -> None:
        """Run the next block on a micro-batch, then its UEM and the policy, without waiting for the device."""
        network = self.network
        i = mb.layer = mb.layer + 1
        if i == 0:
            mb.state = self._embed(mb)
        else:
            source = network.skip_source[i - 1]
            skip = None if source is None else mb.take_skip(source, self.present)
            mb.state = network.blocks[i - 1](mb.state, skip)
            if i - 1 in network.skip_source:
                mb.skips[i - 1] = [(mb.rows, mb.state)]
        if self.request.deviations:
            mb.outputs.append(self._combined(network.model.read_out(i, mb.state, self.t[: len(mb.state)])))
        mb.decision = to_host(self._decide(i, mb)) if i < network.num_blocks else None

    def _embed(self, mb: MicroBatch) -> Tensor:
        """(n,C,H,W) images → (n, …) input of block 0, (2·n, …) with guidance."""
        images = mb.state if self.copies == 1 else mb.state.repeat_interleave(self.copies, dim=0)
        labels = self.labels
        if labels is not None:
            labels = labels.view(-1, self.copies)[torch.from_numpy(mb.rows)].flatten()
        return self.network.model.backbone.embed(images, self.t[: len(images)], labels)

    def _decide(self, i: int, mb: MicroBatch) -> Tensor | bool:
        """The policy's decision at layer i: (n,) bool, or one bool for all."""
        request, policy, u = self.request, self.request.policy, None
        if i in self.queried_layers:
            u = self.network.uems[i](mb.state, self.t[: len(mb.state)])
            if self.copies > 1:
                u = u.view(-1, self.copies).amax(dim=1)
            self.uncertainty.append((i, mb.rows, u))
        elif policy.needs_uncertainty:
            u = torch.full((len(mb),), torch.nan, device=self.x.device)  # a layer without UEM is below no threshold
        samples = request.samples[mb.rows]
        state = LayerState(i, self.network.num_blocks, request.step, request.timestep, samples, u, mb.lowest)
        decision = policy.should_exit(state)
        if policy.needs_lowest_uncertainty and i in self.queried_layers and u is not None:
            mb.lowest = u if mb.lowest is None else torch.fmin(mb.lowest, u)
        return decision

    def apply_exits(self, mb: MicroBatch) -> Exited | None:
        """Wait for the policy's decision; the samples that exit, if any, are dropped unless everything is recorded."""
        if mb.decision is None:
            return self._finish(mb)
        exits = mb.decision()
        if exits is False:
            return None
        if exits is True:
            exits = np.ones(len(mb), dtype=np.bool_)
        if self.request.record == "full":
            exits = exits & self.active[mb.rows]
        exiting = exits.nonzero()[0]
        if not len(exiting):
            return None
        exited = self._exit(mb, exiting)
        if self.request.record == "exit":
            mb.keep((~exits).nonzero()[0])
        return exited

    def _finish(self, mb: MicroBatch) -> Exited | None:
        """After the last block: the samples that have not exited before."""
        if mb.outputs:
            errors = [(g - mb.outputs[-1]).square().mean(dim=(1, 2, 3)).sqrt() for g in mb.outputs[:-1]]
            self.deviation.append((mb.rows, torch.stack(errors, dim=1)))  # (n,N)
        exiting = self.active[mb.rows].nonzero()[0]
        exited = self._exit(mb, exiting) if len(exiting) else None
        mb.rows = mb.rows[:0]
        return exited

    def _exit(self, mb: MicroBatch, exiting: Rows) -> Exited:
        """Record the exit of (k,) rows of a micro-batch."""
        rows = mb.rows[exiting]
        self.exit_layer[rows], self.active[rows] = mb.layer, False
        return Exited(mb.layer, rows, gather(mb.state, exiting, len(mb)))

    def read_out(self, exited: list[Exited]) -> None:
        """Evaluate the output heads of samples that exited, once per layer."""
        for layer, same in groupby(sorted(exited, key=lambda each: each.layer), lambda each: each.layer):
            parts = list(same)
            state = parts[0].state if len(parts) == 1 else torch.cat([part.state for part in parts])
            output = self.network.model.read_out(layer, state, self.t[: len(state)])
            self.outputs.append((np.concatenate([part.rows for part in parts]), self._combined(output)))

    def _combined(self, output: Tensor) -> Tensor:
        """Guided predictions: (n, …), or with guidance (2·n, …) → (n,C,H,W) float32."""
        condition = self.request.condition
        return output.float() if condition is None else condition.combine(output)

    def collect(self) -> Prediction:
        """The result, in the order of the batch."""
        uncertainty = np.full((len(self.x), self.network.num_blocks), np.nan, dtype=np.float32)
        if self.uncertainty:
            values = torch.cat([u for _, _, u in self.uncertainty]).cpu().numpy()  # one transfer from the device
            start = 0
            for layer, rows, _ in self.uncertainty:
                uncertainty[rows, layer] = values[start : start + len(rows)]
                start += len(rows)
        deviation = in_order(self.deviation).cpu() if self.deviation else None
        exit_layer = torch.from_numpy(self.exit_layer)
        return Prediction(in_order(self.outputs), exit_layer, torch.from_numpy(uncertainty), deviation)
