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

import torch

from deediff.sampling.chunks import Chunk
from deediff.sampling.walk import Leavers, Walk

MAX_LANES = 8  # they share Python's lock; more cores are shared by the operators of each


@contextmanager
def one_thread() -> Iterator[int]:
    """Operators of this thread run on it alone meanwhile; gives the number of threads they had.

    Torch's own threads would wait actively for the next operator, on the cores that the lanes need.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MAX_LANES - 1, thread_name_prefix="lane")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked process has none of these threads


def in_lanes(work: Callable[[], None], lanes: int, threads: int) -> None:
    """Run `work` in this thread and lanes − 1 others at once, operators in each on `threads` threads.

    Raises what it raised anywhere; `work` has to end everywhere when it fails somewhere.
    """

    def lane() -> None:
        torch.set_num_threads(threads)  # of this thread only
        with torch.inference_mode():
            work()

    with one_thread():
        others = [_helpers().submit(lane) for _ in range(lanes - 1)]
        try:
            lane()
        finally:
            wait(others)
    for other in others:
        other.result()


class Pool:
    """The chunks of a walk that no lane has at the moment, and those who have left and wait for their head.

    The shallowest chunk goes first, so that chunks meet and join when they have become small; when
    there are too few for all lanes, they split.
    """

    def __init__(self, walk: Walk, chunk_size: int, lanes: int):
        batch = len(walk.x)
        self._walk, self._size, self._lanes = walk, chunk_size, lanes
        self._waiting = walk.chunks(min(batch, lanes * math.ceil(batch / (chunk_size * lanes))))
        self._leavers: dict[int, list[Leavers]] = {}  # by layer
        self._rows, self._busy, self._failed = batch, 0, False  # rows in the network, lanes that have a chunk
        self._changed = threading.Condition()

    def work(self) -> None:
        """What each lane does, until nothing is left to do."""
        try:
            while (task := self._next()) is not None:
                task()
        except BaseException:
            with self._changed:
                self._failed = True
                self._changed.notify_all()
            raise

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._failed:
                if self._waiting:
                    return self._next_chunk()
                if self._leavers:
                    return self._next_leavers()
                if not self._busy:
                    break
                self._changed.wait()
            return None

    def _next_chunk(self) -> Callable[[], None]:
        """One step of the shallowest chunk, joined by others at its layer as long as there are enough for all lanes."""
        first, *others = sorted(self._waiting, key=lambda chunk: (chunk.layer, len(chunk)))
        rows, limit = len(first), min(self._size, math.ceil(self._rows / self._lanes))
        joining: list[Chunk] = []
        while others and others[0].layer == first.layer and rows + len(others[0]) <= limit:
            rows += len(others[0])
            joining.append(others.pop(0))
        self._busy += 1
        if self._walk.record == "exit" and not others and not joining and self._busy < self._lanes and rows > 1:
            others = [first.split(self._walk.present)]
            self._changed.notify()
        self._waiting = others
        return partial(self._advance, first, joining)

    def _next_leavers(self) -> Callable[[], None]:
        """The head of one layer on about as many of its leavers as fit into a chunk."""
        layer, waiting = next(iter(self._leavers.items()))
        some = [waiting.pop()]
        while waiting and sum(len(rows) for rows, _ in some) + len(waiting[-1][0]) <= self._size:
            some.append(waiting.pop())
        if not waiting:
            del self._leavers[layer]
        return partial(self._walk.read_out, layer, some)

    def _advance(self, chunk: Chunk, joining: list[Chunk]) -> None:
        chunk.join(joining)
        layer_rows = len(chunk)
        self._walk.advance(chunk)
        leavers = self._walk.settle(chunk)
        with self._changed:
            self._busy -= 1
            self._rows -= layer_rows - len(chunk)
            if leavers is not None:
                self._leavers.setdefault(chunk.layer, []).append(leavers)
            if len(chunk):
                self._waiting.append(chunk)
            self._changed.notify_all()
