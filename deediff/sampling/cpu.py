"""How chunks share the cores of a CPU: each lane is a thread that takes one through one block at a time.

Operators on a few samples are too small to be shared between cores, and everyone would wait for the
slowest core after each of them. So each lane runs its own operators alone and takes the next chunk when
it is done.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import torch

from deediff.sampling.forward import Leavers, Walk
from deediff.sampling.micro_batch import Chunk

MAX_LANES = 8  # they share Python's lock; more cores are shared by the operators of each


class _Samplings:
    """How many samplings are under way, in whatever threads, and the number of threads that torch had before them."""

    lock, count, threads = threading.Lock(), 0, 1


@contextmanager
def one_thread() -> Iterator[int]:
    """Operators of this thread run on it alone meanwhile; gives the number of threads they had. Not to be nested.

    Torch's own threads would wait actively for the next operator, on the cores that the lanes need.
    """
    with _Samplings.lock:
        if _Samplings.count == 0:  # else another thread has changed the number, which is in part everyone's
            _Samplings.threads = torch.get_num_threads()
        _Samplings.count += 1
    torch.set_num_threads(1)
    try:
        yield _Samplings.threads
    finally:
        with _Samplings.lock:
            _Samplings.count -= 1
        torch.set_num_threads(_Samplings.threads)


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_LANES - 1, thread_name_prefix="lane")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked process has none of these threads


def in_lanes(work: Callable[[], None], lanes: int, threads: int) -> None:
    """Run `work` in this thread and lanes − 1 others at once, operators in each on `threads` threads.

    To be called in `one_thread`. Raises what it raised anywhere; `work` has to end everywhere when it fails somewhere.
    """

    def lane() -> None:
        torch.set_num_threads(threads)  # of this thread only
        with torch.inference_mode():
            work()

    others = [_helpers().submit(lane) for _ in range(lanes - 1)]
    try:
        lane()
    finally:
        wait(others)
        torch.set_num_threads(1)
    for other in others:
        other.result()


class Pool:
    """The chunks of a walk that no lane has at the moment, and those who have left and wait for their head.

    A lane goes on with its chunk as long as there is nothing to choose. Else the shallowest goes first, so
    that chunks meet and join when they have become small; when a lane has none, others split theirs.
    """

    def __init__(self, walk: Walk, chunk_size: int, lanes: int):
        batch = len(walk.x)
        self._walk, self._size, self._lanes = walk, chunk_size, lanes
        self._waiting = walk.chunks(min(batch, lanes * math.ceil(batch / (chunk_size * lanes))))
        self._left: list[tuple[int, Leavers]] = []  # with their exit layer; lanes add to it without the lock
        self._idle, self._busy = 0, 0  # lanes that look for something to do, and that do something
        self._failed = False
        self._changed = threading.Condition()

    def work(self) -> None:
        """What each lane does, until nothing is left to do."""
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
            while not self._failed and not self._waiting and not self._left:
                if not self._busy:  # so nobody will bring anything any more; some lanes may not even have come yet
                    self._changed.notify_all()
                    return None
                self._changed.wait()
            if self._failed:
                return None
            self._idle -= 1
            self._busy += 1
            return self._next_chunk() if self._waiting else self._next_leavers()

    def _next_chunk(self) -> Callable[[], None]:
        """The shallowest chunk, joined by others at its layer as long as there are enough for all lanes."""
        first, *others = sorted(self._waiting, key=lambda chunk: (chunk.layer, len(chunk)))
        rows, limit = len(first), min(self._size, math.ceil(np.count_nonzero(self._walk.present) / self._lanes))
        joining: list[Chunk] = []
        while others and others[0].layer == first.layer and rows + len(others[0]) <= limit:
            rows += len(others[0])
            joining.append(others.pop(0))
        if self._idle and not others and not joining and rows > 1 and not self._walk.deviations:
            others = [first.split(self._walk.present)]
            self._changed.notify()
        self._waiting = others
        return partial(self._advance, first, joining)

    def _next_leavers(self) -> Callable[[], None]:
        """The heads of some who have left: a lane's share, but no more than fit into a chunk."""
        limit = min(self._size, math.ceil(sum(len(rows) for _, (rows, _) in self._left) / (1 + self._idle)))
        some = [self._left.pop()]
        while self._left and sum(len(rows) for _, (rows, _) in some) < limit:
            some.append(self._left.pop())
        if self._left:
            self._changed.notify()
        return partial(self._walk.read_out, some)

    def _advance(self, chunk: Chunk, joining: list[Chunk]) -> None:
        chunk.join(joining)
        while len(chunk):
            self._walk.advance(chunk)
            if (leavers := self._walk.settle(chunk)) is not None:
                self._left.append((chunk.layer, leavers))
            # A glance without the lock: what it overlooks it sees after the next block.
            if self._failed or self._waiting or (self._idle and len(chunk) > 1):
                break
        if len(chunk):
            with self._changed:
                self._waiting.append(chunk)
