"""Long work in the background: jobs that take turns in a queue, so that one at a time uses the device.

Plain objects and a worker thread; nothing here knows about screens. Pages look at a job's `status`, an
immutable record that the worker replaces, and call `cancel`. A job whose session has gone for good is
abandoned, unless its result was meant to be kept.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from deediff.errors import UserError

GRACE = 20.0  # seconds that a session may be out of sight, as when its laptop changes networks


@dataclass(frozen=True)
class Session:
    """Who asked for a job."""

    key: str
    connected: Callable[[], bool] = field(default=lambda: True, compare=False)


@dataclass(frozen=True)
class Status:
    """How far a job is."""

    state: Literal["waiting", "running", "done", "cancelled", "failed"] = "waiting"
    done: int = 0
    total: int = 0  # 0: not known yet
    what: str = ""  # what is being done, where a job has several parts
    seconds_left: float | None = None
    error: str = ""

    @property
    def active(self) -> bool:
        """Whether more is to come."""
        return self.state in ("waiting", "running")

    @property
    def share(self) -> float:
        """0 … 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class Job(ABC):
    """Something that takes a while and needs the device."""

    kept: ClassVar[bool] = False  # goes on when nobody looks any more

    def __init__(self, session: Session, title: str):
        self.session, self.title = session, title
        self.status = Status()
        self._cancel, self._ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # a job that starts cannot be withdrawn at the same moment
        self._seen = time.monotonic()  # when its session was last connected
        self._begin = (0.0, 0)  # when the present part began, and how much was done then

    @abstractmethod
    def work(self) -> None:
        """In the queue's thread. Looks at `stopped` often, and then returns; reports through `progress`."""

    def cancel(self) -> None:
        """Withdraws a waiting job at once; a running one stops before its next step."""
        self._cancel.set()
        with self._lock:
            if self.status.state == "waiting":
                self._end("cancelled")

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._ended.wait(timeout)

    def stopped(self) -> bool:
        """Whether to stop: cancelled, or its session has been gone for longer than `GRACE`."""
        if not self.kept:
            now = time.monotonic()
            if self.session.connected():
                self._seen = now
            elif now - self._seen > GRACE:
                self._cancel.set()
        return self._cancel.is_set()

    def progress(self, done: int, total: int, what: str = "") -> None:
        """From within `work`. The time left is estimated when `what` has gone on for a while."""
        now = time.perf_counter()
        if done == 0 or what != self.status.what:
            self._begin = (now, done)
        since, first = self._begin
        left = (now - since) / (done - first) * (total - done) if done > first else None
        self.status = replace(self.status, done=done, total=total, what=what, seconds_left=left)

    def run(self) -> None:
        """What the queue calls."""
        with self._lock:
            if not self.status.active:
                return
            if self.stopped():
                self._end("cancelled")
                return
            self._begin = (time.perf_counter(), 0)
            self.status = replace(self.status, state="running")
        try:
            self.work()
            self._end("cancelled" if self._cancel.is_set() and self.status.share < 1 else "done")
        except Exception as error:  # a thread has nobody to raise to: the page shows the sentence
            if self._cancel.is_set():
                self._end("cancelled")
            elif isinstance(error, UserError):
                self._end("failed", str(error))
            else:
                logging.getLogger(__name__).exception("%s failed", self.title)
                self._end("failed", f"“{self.title}” failed ({type(error).__name__}: {error}); the log says more.")

    def _end(self, state: Literal["done", "cancelled", "failed"], error: str = "") -> None:
        self.status = replace(self.status, state=state, seconds_left=None, error=error if state == "failed" else "")
        self._ended.set()


class JobQueue:
    """One at a time, first come, first served, whoever asked."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []  # the running one first
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Returns at once."""
        with self._changed:
            self._jobs.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._take_turns, name="jobs", daemon=True)
                self._worker.start()
            self._changed.notify()

    def jobs(self) -> list[Job]:
        """Those still to do, the running one first; who waits for nobody any more is withdrawn."""
        with self._changed:
            jobs = list(self._jobs)
        for job in jobs:
            if job.status.state == "waiting" and job.stopped():
                job.cancel()
        return [job for job in jobs if job.status.active]

    def ahead_of(self, job: Job) -> int:
        """How many jobs come before this one; 0 for one that runs or has ended."""
        jobs = self.jobs()
        return jobs.index(job) if job in jobs else 0

    def _take_turns(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = self._jobs[0]
            job.run()
            with self._changed:
                self._jobs = [other for other in self._jobs if other is not job and other.status.active]


QUEUE = JobQueue()  # of this process, which samples on one device
