"""Forward passes on a CPU: workers, each a thread on a core of its own, take micro-batches through one block at a time.

Operators on a few samples are too small to be split between cores, and after each of them all cores would wait for
the slowest. So every worker runs its operators alone, and takes the next micro-batch when it is done.
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

import torch

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
    queue = deque(forward.micro_batches(count))

    def work() -> None:
        exited: list[Exited] = []
        while queue:
            try:
                micro_batch = queue.popleft()  # the shallowest
            except IndexError:  # another worker has taken the last one
                break
            forward.advance(micro_batch)
            if (exits := forward.apply_exits(micro_batch)) is not None:
                exited.append(exits)
            if len(micro_batch):
                queue.append(micro_batch)
        forward.read_out(exited)

    def work_or_stop() -> None:
        try:
            work()
        except BaseException:
            queue.clear()  # the other workers finish the micro-batches that they hold
            raise

    run_workers(work_or_stop, workers, threads // workers)


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
