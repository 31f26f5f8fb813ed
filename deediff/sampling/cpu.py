"""Forward passes on a CPU: workers, each a thread on a core of its own, take micro-batches through one block at a time.

Operators on a few samples are too small to be split between cores, and after each of them all cores would wait for
the slowest. So every worker runs its operators alone, and takes the next micro-batch when it is done. Those that exits
have made small join at the same layer; when none is left, a worker evaluates heads of samples that exited, or another
one splits its micro-batch.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
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
    batch = len(forward.x)
    size = max(1, min(CPU_ROWS, CPU_CACHE // forward.network.model.backbone.state_size) // forward.copies)
    workers = min(threads, MAX_WORKERS, batch)
    count = min(batch, workers * math.ceil(batch / (size * workers)))
    if forward.request.policy.decides_for_batch:
        count = workers = 1
    queue = WorkQueue(forward, forward.micro_batches(count), size, workers)

    def work() -> None:
        try:
            while (task := queue.take()) is not None:
                if isinstance(task, MicroBatch):
                    _advance(forward, task, queue)
                else:
                    forward.read_out(task)
                queue.done(task)
        except BaseException:
            queue.fail()
            raise

    run_workers(work, workers, threads // workers)


def _advance(forward: ForwardPass, micro_batch: MicroBatch, queue: WorkQueue) -> None:
    """Run blocks on a micro-batch until it is empty, or another one waits: then the shallowest is next."""
    while True:
        forward.advance(micro_batch)
        if (exits := forward.apply_exits(micro_batch)) is not None:
            queue.exited.append(exits)
        if not len(micro_batch) or queue.waiting:
            break
        if queue.idle and len(micro_batch) > 1 and not forward.request.deviations:
            queue.add(micro_batch.split(forward.present))


class WorkQueue:
    """Micro-batches that no worker holds, and samples that exited; a worker that finds none waits for either.

    `waiting` and `idle` may be read without the lock, and `exited` be added to: a change that is missed is seen after
    the next block.
    """

    def __init__(self, forward: ForwardPass, micro_batches: list[MicroBatch], size: int, workers: int):
        self.waiting = deque(micro_batches)
        self.exited: list[Exited] = []  # their heads are still to be evaluated
        self._forward, self._size, self._workers = forward, size, workers
        self.idle, self.busy = 0, 0  # workers that wait for a task, and that have one
        self._failed = False
        self._changed = threading.Condition()

    def take(self) -> MicroBatch | list[Exited] | None:
        """The shallowest micro-batch, else samples that exited; None when no task is left, or a worker failed."""
        with self._changed:
            self.idle += 1
            while not (self.waiting or self.exited) and self.busy and not self._failed:
                self._changed.wait()
            self.idle -= 1
            if self._failed or not (self.waiting or self.exited):
                return None
            self.busy += 1
            return self._joined() if self.waiting else self._share_of_exited()

    def _share_of_exited(self) -> list[Exited]:
        """A worker's share of the samples that exited, but no more than a micro-batch has."""
        limit = min(self._size, math.ceil(sum(len(each.rows) for each in self.exited) / (1 + self.idle)))
        share = [self.exited.pop()]
        while self.exited and sum(len(each.rows) for each in share) < limit:
            share.append(self.exited.pop())
        if self.exited:
            self._changed.notify()
        return share

    def _joined(self) -> MicroBatch:
        """The shallowest micro-batch, with others at its layer, as long as there is enough for every worker."""
        found, *others = sorted(self.waiting, key=lambda each: (each.layer, len(each)))
        limit = min(self._size, math.ceil(np.count_nonzero(self._forward.present) / self._workers))
        same, rows = 0, len(found)
        while same < len(others) and others[same].layer == found.layer and rows + len(others[same]) <= limit:
            rows += len(others[same])
            same += 1
        if same:
            found.join(others[:same])
        self.waiting = deque(others[same:])
        return found

    def add(self, micro_batch: MicroBatch) -> None:
        """Offer a part of the micro-batch that this worker holds."""
        with self._changed:
            self.waiting.append(micro_batch)
            self._changed.notify()

    def done(self, task: MicroBatch | list[Exited]) -> None:
        """Return what `take` gave; a micro-batch of which rows are left waits again."""
        with self._changed:
            self.busy -= 1
            if isinstance(task, MicroBatch) and len(task):
                self.waiting.append(task)
            self._changed.notify_all()

    def fail(self) -> None:
        """Let `take` return None to all workers."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()


class _Jobs:
    """Number of sampling jobs running in any thread of this process, and torch's number of threads before the first."""

    lock, count, threads = threading.Lock(), 0, 1


@contextmanager
def one_thread() -> Iterator[int]:
    """Restrict torch's operators in this thread to one CPU thread. Not to be nested.

    Yields the number of threads that this job may use: its share, when several run at once. Torch's own threads would
    spin while they wait for the next operator, on the cores that the workers need.
    """
    with _Jobs.lock:
        if _Jobs.count == 0:  # otherwise another job has already changed the number, part of which is global
            _Jobs.threads = torch.get_num_threads()
        _Jobs.count += 1
        share = max(1, _Jobs.threads // _Jobs.count)
    torch.set_num_threads(1)
    try:
        yield share
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

    To be called inside `one_thread`. Returns when all have finished; raises the error of one that failed.
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
