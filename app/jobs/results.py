"""Results that are computed in the background, once, and remembered by their key."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from app.jobs.queue import Job, JobQueue, Session

Stopped = Callable[[], bool]
Compute = Callable[[Stopped], Any]  # returns early, with any value, once its argument returns True


class Computation(Job):
    """A function's value; not bound to one tab, because several may wait for it."""

    kept = True

    def __init__(self, key: Hashable, title: str, compute: Compute):
        super().__init__(Session("results"), title)
        self.key, self.value = key, None
        self.waiting: set[Hashable] = set()  # for it
        self._compute = compute

    def work(self) -> None:
        self.value = self._compute(self.stopped)


class Results:
    """Computations by key, run in a queue of their own; the oldest of `most` are forgotten."""

    def __init__(self, name: str, most: int):
        self._queue, self._most = JobQueue(name), most
        self._computations: OrderedDict[Hashable, Computation] = OrderedDict()
        self._lock = threading.Lock()

    def is_known(self, key: Hashable) -> bool:
        """Whether the computation has ended."""
        with self._lock:
            found = self._computations.get(key)
        return found is not None and not found.status.active

    def request(self, key: Hashable, title: str, compute: Compute, waiter: Hashable = None) -> Computation:
        """The computation of this key, submitted unless it is known or under way."""
        with self._lock:
            found = self._computations.get(key)
            if found is None or found.status.state == "cancelled" or (found.status.active and found.stopped()):
                found = self._computations[key] = Computation(key, title, compute)
                self._queue.submit(found)
            found.waiting.add(waiter)
            self._computations.move_to_end(key)
            ended = [k for k, job in self._computations.items() if not job.status.active]
            for old in ended[: max(0, len(self._computations) - self._most)]:
                del self._computations[old]
        return found

    def release(self, computation: Computation, waiter: Hashable) -> None:
        """Cancel an active computation once nothing waits for it any more."""
        with self._lock:
            computation.waiting.discard(waiter)
            if computation.status.active and not computation.waiting:
                computation.cancel()

    def join(self, timeout: float) -> None:
        """Wait for everything that was requested."""
        with self._lock:
            computations = list(self._computations.values())
        for computation in computations:
            computation.join(timeout)
