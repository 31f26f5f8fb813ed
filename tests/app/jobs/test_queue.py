"""The queue: order, withdrawal, cancellation, and jobs whose tab is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.jobs import queue
from app.jobs.kept import SaveJob
from app.jobs.queue import Job, JobQueue, Session
from deediff.errors import UserError
from deediff.settings import SamplingSettings

Wait = Callable[[], bool]
PATIENCE = 20


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """An event that a test's jobs wait for; it is set at the end, so that no thread keeps running."""
    event = threading.Event()
    yield event
    event.set()


def make_job(
    gate: threading.Event, log: list[str], name: str = "job", connected: Wait = lambda: True, keep: bool = False
):
    """A job of 100 steps that runs while the gate is open."""

    class Steps(Job):
        kept = keep

        def __init__(self) -> None:
            super().__init__(Session(name, connected), name)
            self.begun = threading.Event()

        def work(self) -> None:
            log.append(f"{name} begins")
            self.begun.set()
            for step in range(100):
                while not gate.wait(0.005):
                    if self.stopped():
                        return
                if self.stopped():
                    return
                self.progress(step + 1, 100)
            log.append(f"{name} ends")

    return Steps()


def test_one_job_at_a_time_in_the_order_of_asking(gate: threading.Event) -> None:
    queue, log = JobQueue(), list[str]()
    jobs = [make_job(gate, log, name) for name in "abc"]
    for job in jobs:
        queue.submit(job)
    assert jobs[0].begun.wait(PATIENCE)
    assert [queue.ahead_of(job) for job in jobs] == [0, 1, 2]
    assert [job.status.state for job in jobs] == ["running", "waiting", "waiting"]
    gate.set()
    for job in jobs:
        job.join(PATIENCE)
    assert log == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]
    assert [(job.status.state, job.status.done) for job in jobs] == [("done", 100)] * 3
    assert queue.jobs() == []


def test_a_waiting_job_is_withdrawn_at_once_and_never_begins(gate: threading.Event) -> None:
    queue, log = JobQueue(), list[str]()
    jobs = [make_job(gate, log, name) for name in "abc"]
    for job in jobs:
        queue.submit(job)
    assert jobs[0].begun.wait(PATIENCE)
    jobs[1].cancel()
    assert jobs[1].status.state == "cancelled"
    assert queue.ahead_of(jobs[2]) == 1
    gate.set()
    jobs[2].join(PATIENCE)
    assert "b begins" not in log
    assert log[-1] == "c ends"


def test_a_running_job_stops_when_cancelled(gate: threading.Event) -> None:
    queue, log = JobQueue(), list[str]()
    job, following = make_job(gate, log, "a"), make_job(gate, log, "b")
    queue.submit(job)
    queue.submit(following)
    assert job.begun.wait(PATIENCE)
    job.cancel()
    job.join(PATIENCE)
    assert job.status.state == "cancelled"
    assert following.begun.wait(PATIENCE)


@pytest.mark.parametrize("keep", [False, True])
def test_a_job_whose_tab_is_closed_ends_unless_it_is_kept(
    keep: bool, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "GRACE", 0.05)
    turns, log, tab = queue.JobQueue(), list[str](), threading.Event()
    job = make_job(gate, log, "a", tab.is_set, keep)
    tab.set()
    turns.submit(job)
    assert job.begun.wait(PATIENCE)
    tab.clear()  # closed
    if keep:
        gate.set()
    job.join(PATIENCE)
    assert job.status.state == ("done" if keep else "cancelled")


def test_a_tab_that_comes_back_in_time_keeps_its_job(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tab = [0.0], threading.Event()
    monkeypatch.setattr(queue, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    job = make_job(gate, [], "a", tab.is_set)
    for second, connected in ((1.0, True), (queue.GRACE, False), (queue.GRACE + 2, True), (2 * queue.GRACE + 1, False)):
        tab.set() if connected else tab.clear()
        clock[0] = second
        assert not job.stopped()
    clock[0] = 2 * queue.GRACE + 3
    assert job.stopped()


def test_a_failure_is_a_sentence_and_the_queue_goes_on(gate: threading.Event) -> None:
    class Fails(Job):
        def __init__(self, error: Exception):
            super().__init__(Session("a"), "this")
            self.error = error

        def work(self) -> None:
            raise self.error

    queue, log = JobQueue(), list[str]()
    known, unknown, after = Fails(UserError("no such trace")), Fails(ZeroDivisionError("by zero")), make_job(gate, log)
    gate.set()
    for job in (known, unknown, after):
        queue.submit(job)
        job.join(PATIENCE)
    assert (known.status.state, known.status.error) == ("failed", "no such trace")
    assert unknown.status.state == "failed"
    assert "ZeroDivisionError: by zero" in unknown.status.error
    assert after.status.state == "done"


def test_a_cancelled_save_leaves_nothing_and_overwrites_nothing(run: Path, gate: threading.Event) -> None:
    settings = SamplingSettings("threshold:0.45", "ddim", 5, num_samples=4)

    class Cancels(SaveJob):
        def progress(self, done: int, total: int, what: str = "") -> None:
            super().progress(done, total, what)
            self.cancel()

    def save(kind: type[SaveJob]) -> SaveJob:
        return kind(Session("a"), run, run / "checkpoints" / "7.safetensors", "mine", settings)

    queue = JobQueue()
    first, second, late = save(Cancels), save(SaveJob), save(SaveJob)
    for job in (first, second, late):
        queue.submit(job)
        job.join(PATIENCE)
    assert first.status.state == "cancelled"
    assert second.status.state == "done"  # the name was free again
    assert late.status.state == "failed"  # but not any more
    assert "a trace mine exists already" in late.status.error
    assert (run / "traces" / "mine" / "part-00000.parquet").exists()
    with pytest.raises(UserError, match="choose another name"):
        save(SaveJob)
