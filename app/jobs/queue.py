"""Background work: jobs in a queue, one at a time, in a worker thread.

A page reads a job's `status`, an immutable record that the worker replaces, and may call `cancel`. A job is cancelled
when its browser tab has been closed for a while, unless its result is kept (a trace or an evaluation on disk).
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

GRACE = 20.0  # seconds that a tab may be disconnected, as when its laptop changes networks


@dataclass(frozen=True)
class Session:
    """The browser tab that submitted a job."""

    key: str
    connected: Callable[[], bool] = field(default=lambda: True, compare=False)


@dataclass(frozen=True)
class Status:
    """State and progress of a job."""

    state: Literal["waiting", "running", "done", "cancelled", "failed"] = "waiting"
    done: int = 0
    total: int = 0  # 0: not known yet
    stage: str = ""  # of a job with several stages
    seconds_left: float | None = None
    error: str = ""

    @property
    def active(self) -> bool:
        """Waiting or running."""
        return self.state in ("waiting", "running")

    @property
    def share(self) -> float:
        """0 … 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class Job(ABC):
    """Work that takes longer than a page may wait."""

    kept: ClassVar[bool] = False  # not cancelled when its tab is closed

    def __init__(self, session: Session, title: str):
        self.session, self.title = session, title
        self.purpose = ""  # the name of the missing thing that it makes, where an empty page offered it
        self.status = Status()
        self._cancel, self._ended = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # starting and cancelling exclude each other
        self._seen = time.monotonic()  # when its session was last connected
        self._begin = (0.0, 0)  # start of the present stage, and `done` at that time

    @abstractmethod
    def work(self) -> None:
        """Runs in the queue's thread. Checks `stopped` often and returns then; reports through `progress`."""

    def cancel(self) -> None:
        """Withdraws a waiting job at once; a running one stops before its next step."""
        self._cancel.set()
        with self._lock:
            if self.status.state == "waiting":
                self._end("cancelled")

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it has come."""
        return self._ended.wait(timeout)

    def stopped(self) -> bool:
        """Whether the job was cancelled, or its tab has been closed for longer than `GRACE`."""
        if not self.kept:
            now = time.monotonic()
            if self.session.connected():
                self._seen = now
            elif now - self._seen > GRACE:
                self._cancel.set()
        return self._cancel.is_set()

    def progress(self, done: int, total: int, stage: str = "") -> None:
        """Called from `work`. The remaining time is estimated from the second call of a stage on."""
        now = time.perf_counter()
        if done == 0 or stage != self.status.stage:
            self._begin = (now, done)
        since, first = self._begin
        left = (now - since) / (done - first) * (total - done) if done > first else None
        self.status = replace(self.status, done=done, total=total, stage=stage, seconds_left=left)

    def run(self) -> None:
        """Called by the queue."""
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
        except Exception as error:  # shown by the page: an exception in this thread reaches no one
            if self._cancel.is_set():
                self._end("cancelled")
            elif isinstance(error, UserError):
                self._end("failed", str(error))
            else:
                logging.getLogger(__name__).exception("%s failed", self.title)
                self._end("failed", f"“{self.title}” failed ({type(error).__name__}: {error}); see the server's log.")

    def _end(self, state: Literal["done", "cancelled", "failed"], error: str = "") -> None:
        self.status = replace(self.status, state=state, seconds_left=None, error=error if state == "failed" else "")
        self._ended.set()


class JobQueue:
    """Runs jobs one at a time, in the order of submission."""

    def __init__(self, name: str = "jobs") -> None:
        self._name = name  # of the worker thread
        self._jobs: list[Job] = []  # the running one first
        self._changed = threading.Condition()
        self._worker: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Returns at once."""
        with self._changed:
            self._jobs.append(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._run_all, name=self._name, daemon=True)
                self._worker.start()
            self._changed.notify()

    def jobs(self) -> list[Job]:
        """The active jobs, the running one first; waiting jobs of closed tabs are withdrawn."""
        with self._changed:
            jobs = list(self._jobs)
        for job in jobs:
            if job.status.state == "waiting" and job.stopped():
                job.cancel()
        return [job for job in jobs if job.status.active]

    def ahead_of(self, job: Job) -> int:
        """Number of jobs before this one; 0 for one that runs or has ended."""
        jobs = self.jobs()
        return jobs.index(job) if job in jobs else 0

    def _run_all(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = self._jobs[0]
            job.run()
            with self._changed:
                self._jobs = [other for other in self._jobs if other is not job and other.status.active]


QUEUE = JobQueue()  # of this process, which samples on one device
