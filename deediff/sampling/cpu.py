"""Forward passes on a CPU: workers, each a thread on its own core, take micro-batches through one block at a time.

Operators on a few samples are too small to be split between cores, and after each of them all cores would wait for
the slowest. So every worker runs its operators alone, and takes the next micro-batch when it is done.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from deediff.sampling.micro_batch import MicroBatch

if TYPE_CHECKING:
    from deediff.sampling.forward import Exited, ForwardPass

CPU_CACHE = 2**19  # values of state per call of a block on one core, the fastest per image on the CPUs measured …
CPU_ROWS = 16  # … and at most this many rows
CPU_GROUP = 64  # samples in one forward pass: bounds the memory of the long skips
MAX_WORKERS = 8  # they share Python's lock; more cores are shared by the operators of each


def run_on_cpu(forward: ForwardPass, threads: int) -> None:
    """Take a forward pass to its end, with as many samples per micro-batch as a core's cache holds."""
    size = max(1, min(CPU_ROWS, CPU_CACHE // forward.network.model.backbone.state_size) // forward.copies)
    workers = min(threads, MAX_WORKERS, len(forward.x))
    if forward.request.policy.decides_for_batch:
        size, workers = len(forward.x), 1
    run_workers(Pool(forward, size, workers).work, workers, threads // workers)


class Pool:
    """Micro-batches of a forward pass that no worker holds, and exited samples that wait for their output head.

    A worker keeps its micro-batch while there is no other work. Otherwise the shallowest micro-batch is next, so that
    small ones reach the same layer and join. When a worker has none, the others split theirs.
    """

    def __init__(self, forward: ForwardPass, size: int, workers: int):
        batch = len(forward.x)
        self._forward, self._size, self._workers = forward, size, workers
        self._waiting = forward.micro_batches(min(batch, workers * math.ceil(batch / (size * workers))))
        self._exited: list[Exited] = []  # workers append to it without the lock
        self._idle, self._busy = 0, 0  # workers that wait for work, and that do some
        self._failed = False
        self._changed = threading.Condition()

    def work(self) -> None:
        """The loop of each worker, until no work is left or one of them has failed."""
        try:
            while (task := self._next()) is not None:
                task()
                with self._changed:
                    self._busy -= 1
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._idle += 1
            while not self._failed and not self._waiting and not self._exited:
                if not self._busy:  # no worker can bring new work; some may not even have started
                    self._changed.notify_all()
                    return None
                self._changed.wait()
            if self._failed:
                return None
            self._idle -= 1
            self._busy += 1
            return self._next_micro_batch() if self._waiting else self._next_exited()

    def _next_micro_batch(self) -> Callable[[], None]:
        """The shallowest micro-batch, joined by others at its layer while there are enough for all workers."""
        first, *others = sorted(self._waiting, key=lambda mb: (mb.layer, len(mb)))
        rows, limit = len(first), min(self._size, math.ceil(np.count_nonzero(self._forward.present) / self._workers))
        joining: list[MicroBatch] = []
        while others and others[0].layer == first.layer and rows + len(others[0]) <= limit:
            rows += len(others[0])
            joining.append(others.pop(0))
        if self._idle and not others and not joining and rows > 1 and not self._forward.request.deviations:
            others = [first.split(self._forward.present)]
            self._changed.notify()
        self._waiting = others
        return partial(self._advance, first, joining)

    def _next_exited(self) -> Callable[[], None]:
        """The heads of a worker's share of the exited samples, but of no more than fit into a micro-batch."""
        limit = min(self._size, math.ceil(sum(len(each.rows) for each in self._exited) / (1 + self._idle)))
        some = [self._exited.pop()]
        while self._exited and sum(len(each.rows) for each in some) < limit:
            some.append(self._exited.pop())
        if self._exited:
            self._changed.notify()
        return partial(self._forward.read_out, some)

    def _advance(self, micro_batch: MicroBatch, joining: list[MicroBatch]) -> None:
        micro_batch.join(joining)
        while len(micro_batch):
            self._forward.advance(micro_batch)
            if (exited := self._forward.apply_exits(micro_batch)) is not None:
                self._exited.append(exited)
            # Read without the lock: a change that is missed here is seen after the next block.
            if self._failed or self._waiting or (self._idle and len(micro_batch) > 1):
                break
        if len(micro_batch):
            with self._changed:
                self._waiting.append(micro_batch)


class _Jobs:
    """Number of sampling jobs running in any thread of this process, and torch's number of threads before the first."""

    lock, count, threads = threading.Lock(), 0, 1


@contextmanager
def one_thread() -> Iterator[int]:
    """Restrict torch's operators in this thread to one CPU thread; yields their number before. Not to be nested.

    Torch's own threads would spin while they wait for the next operator, on the cores that the workers need.
    """
    with _Jobs.lock:
        if _Jobs.count == 0:  # otherwise another job has already changed the number, part of which is global
            _Jobs.threads = torch.get_num_threads()
        _Jobs.count += 1
    torch.set_num_threads(1)
    try:
        yield _Jobs.threads
    finally:
        with _Jobs.lock:
            _Jobs.count -= 1
        torch.set_num_threads(_Jobs.threads)


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_WORKERS - 1, thread_name_prefix="worker")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_executor.cache_clear)  # a forked process has none of these threads


def run_workers(work: Callable[[], None], workers: int, threads: int) -> None:
    """Run `work` in this thread and in workers − 1 others, each with `threads` threads for its operators.

    To be called inside `one_thread`. `work` has to return everywhere when it fails in one worker; its error is raised.
    """

    def worker() -> None:
        torch.set_num_threads(threads)  # of this thread only
        with torch.inference_mode():
            work()

    others = [_executor().submit(worker) for _ in range(workers - 1)]
    try:
        worker()
    finally:
        wait(others)
        torch.set_num_threads(1)
    for other in others:
        other.result()
