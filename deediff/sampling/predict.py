"""One evaluation of the network, cut as suits the device."""

from __future__ import annotations

from collections import deque

from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.sampling.cpu import MAX_LANES, Pool, in_lanes, one_thread
from deediff.sampling.forward import Leavers, Prediction, Walk
from deediff.sampling.network import Network
from deediff.sampling.request import Request

CPU_CACHE = 2**19  # values of state per call of a block on one core, the fastest per image on the CPUs measured …
CPU_CHUNK = 16  # … and at most this many rows
CPU_GROUP = 64  # samples that walk through the network together: bounds the memory of the long skips
GPU_CHUNKS = 2  # their blocks are queued in turn, so that the device never waits for a decision


def predict(
    model: EarlyExitModel | Network,
    x: Tensor,  # (B,C,H,W)
    request: Request,
    threads: int | None = None,  # of a CPU, by a caller that is in `one_thread`; None: as many as torch uses here
) -> Prediction:
    """Run each block on the samples that are still in the network, and on no others."""
    if threads is None:
        with one_thread() as threads:
            return predict(model, x, request, threads)
    network = model if isinstance(model, Network) else Network(model)
    on_cpu = x.device.type == "cpu"
    size = CPU_GROUP if on_cpu and not request.policy.decides_for_batch else len(x)
    parts = []
    for images, each in zip(x.split(size), request.split(size), strict=True):
        walk = Walk(network, images, each)
        if on_cpu:
            _on_cpu(walk, threads)
        else:
            _on_gpu(walk)
        parts.append(walk.collect())
    return parts[0] if len(parts) == 1 else Prediction.concatenate(parts)


def _on_cpu(walk: Walk, threads: int) -> None:
    """Each core for itself, with as many samples at a time as its cache holds; all of them together on fewer."""
    size = max(1, min(CPU_CHUNK, CPU_CACHE // walk.network.model.backbone.state_size) // walk.copies)
    lanes = min(threads, MAX_LANES, len(walk.x))
    if walk.policy.decides_for_batch:
        size, lanes = len(walk.x), 1
    in_lanes(Pool(walk, size, lanes).work, lanes, threads // lanes)


def _on_gpu(walk: Walk) -> None:
    """All at once; while one half waits for its decision, the device computes the other."""
    count = 1 if walk.policy.decides_for_batch else min(GPU_CHUNKS, len(walk.x))
    turns, left = deque(walk.chunks(count)), list[tuple[int, Leavers]]()
    for chunk in turns:
        walk.advance(chunk)
    while turns:
        chunk = turns.popleft()
        if (leavers := walk.settle(chunk)) is not None:
            left.append((chunk.layer, leavers))
        if len(chunk):
            walk.advance(chunk)
            turns.append(chunk)
    walk.read_out(left)
