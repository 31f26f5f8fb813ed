"""One evaluation of the network with real exits: later blocks run without the samples that have exited.

`predict` sends a batch through a `ForwardPass` in micro-batches. Before each block the policy decides which samples
exit; these are set aside for their output head, and the micro-batch is compacted. The result does not depend on the
order in which micro-batches are advanced: see `_on_gpu`, and `deediff.sampling.cpu`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.models.cpu.mlp_uem import prepared_uem
from deediff.models.cpu.uvit_block import prepared_block
from deediff.policies.base import LayerState
from deediff.policies.remembering import SignalPolicy
from deediff.readouts import StateReadout
from deediff.sampling.cpu import CPU_GROUP, one_thread, run_on_cpu
from deediff.sampling.micro_batch import MicroBatch, Rows, gather, in_order, to_host
from deediff.sampling.request import Prediction, Request

GPU_MICRO_BATCHES = 2  # while the host waits for the decision of one, the device computes the other


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
    skips: Mapping[int, Tensor] = MappingProxyType({})  # block → its output, for blocks that run after the exit


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
        self.exits = None if request.recall is None else request.recall.readout
        self.resumes = network.num_blocks
        if isinstance(self.exits, StateReadout):
            self.resumes = self.exits.resume_layer(network.num_blocks)
        self.signaller = None if request.recall is None else request.policy.signaller
        self.signal = torch.full((batch,), torch.nan, device=x.device)
        self.kept_layers = frozenset[int]() if request.recall is None else request.recall.layers
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
        if i in self.kept_layers:
            mb.skips[-1 - i] = [(mb.rows, mb.state)]  # compacted when it is stored, like a long skip
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
        since = None if request.recall is None else request.recall.since_full(mb.rows)
        blocks, step, timestep = self.network.num_blocks, request.step, request.timestep
        state = LayerState(i, blocks, step, timestep, samples, u, mb.lowest, None, since)
        if self.signaller is not None and i >= self.signaller.signal_layer:
            state = state._replace(signal=self._signal(i, mb, state, self.signaller))
        if i == 0 and request.recall is not None and request.recall.keeps_input:
            request.recall.keep_input(mb.rows, mb.state)
        decision = policy.should_exit(state)
        if policy.needs_lowest_uncertainty and i in self.queried_layers and u is not None:
            mb.lowest = u if mb.lowest is None else torch.fmin(mb.lowest, u)
        return decision

    def _signal(self, i: int, mb: MicroBatch, state: LayerState, policy: SignalPolicy) -> Tensor:
        """(n,) what the policy compares; computed at its layer, and known at the later ones."""
        recall, index = self.request.recall, torch.from_numpy(mb.rows).to(self.x.device)
        assert recall is not None
        if i > policy.signal_layer:
            return self.signal[index]

        def state_of(layer: int) -> Tensor:
            return mb.state if layer == i else mb.rows_of(-1 - layer, self.present)

        signal = policy.signal(state, recall.view(mb.rows, state_of, self.x.device))
        self.signal[index] = signal
        return signal

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
        if self.kept_layers and len(exiting):
            self._store(mb)
        exited = self._exit(mb, exiting) if len(exiting) else None
        mb.rows = mb.rows[:0]
        return exited

    def _store(self, mb: MicroBatch) -> None:
        """Hand the states of samples that ran all blocks to their memory."""
        assert self.request.recall is not None
        rows = mb.rows[self.active[mb.rows]]
        states = {i: mb.take_skip(-1 - i, self.active) for i in self.kept_layers}
        last = gather(mb.state, self.active[mb.rows].nonzero()[0], len(mb))
        self.request.recall.store(rows, {**states, self.network.num_blocks: last}, self.network.num_blocks)

    def _exit(self, mb: MicroBatch, exiting: Rows) -> Exited:
        """Record the exit of (k,) rows of a micro-batch."""
        rows = mb.rows[exiting]
        self.exit_layer[rows], self.active[rows] = mb.layer, False
        state = gather(mb.state, exiting, len(mb))
        if mb.layer == self.network.num_blocks:
            return Exited(mb.layer, rows, state)
        leaving = np.zeros_like(self.active)
        leaving[rows] = True
        sources = [source for source in self.network.skip_source[self.resumes :] if source is not None]
        return Exited(mb.layer, rows, state, {source: mb.rows_of(source, leaving) for source in sources})

    def read_out(self, exited: list[Exited]) -> None:
        """Evaluate the output heads of samples that exited, once per layer."""
        for layer, same in groupby(sorted(exited, key=lambda each: each.layer), lambda each: each.layer):
            parts = list(same)
            state = parts[0].state if len(parts) == 1 else torch.cat([part.state for part in parts])
            rows = np.concatenate([part.rows for part in parts])
            if layer < self.network.num_blocks and self.exits is not None:
                output = self._read_out_otherwise(layer, rows, state, parts)
            else:
                output = self._combined(self.network.model.read_out(layer, state, self.t[: len(state)]))
            self.outputs.append((rows, output))

    def _read_out_otherwise(self, layer: int, rows: Rows, state: Tensor, parts: list[Exited]) -> Tensor:
        """(n,C,H,W) predictions of exits from memory; zeros where the sampler fills in those of a readout."""
        network, recall = self.network, self.request.recall
        if recall is None or not isinstance(self.exits, StateReadout):
            return torch.zeros(len(rows), *network.model.image_shape, device=state.device)
        state = self.exits.resumed(
            state, recall.stored(self.exits, self.exits.stored_key(layer, network.num_blocks), rows)
        )
        for i in range(self.resumes, network.num_blocks):
            source = network.skip_source[i]
            skip = None if source is None else torch.cat([part.skips[source] for part in parts])
            state = network.blocks[i](state, skip)
        return self._combined(network.model.backbone.decode(state))

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
        signal = None if self.signaller is None else self.signal.cpu()
        return Prediction(in_order(self.outputs), exit_layer, torch.from_numpy(uncertainty), deviation, signal)
