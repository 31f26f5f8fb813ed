"""Sampling in the background: the same seeds with and without early exit, step by step side by side.

A plain object with a worker thread. Pages look at its `view`, an immutable record that the worker
replaces after every step, and call `cancel`; nothing here knows about screens.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.cost import Cost, sampling_cost
from deediff.datasets import to_uint8
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.sampling import ExitPolicy, Never, Step, make_policy, sample

DEVICE = threading.Lock()  # one sampling job at a time; the next one waits here


@dataclass(frozen=True)
class Settings:
    """What to sample. All images are one batch."""

    weights: str  # run and checkpoint in words
    policy: str
    solver: str
    steps: int
    num_samples: int
    seed: int


@dataclass(frozen=True)
class Side:
    """One of the twins: the full network, or early exit."""

    images: NDArray[np.uint8]  # (B,C,H,W) predicted x0 so far; the images themselves when done
    exit_layers: NDArray[np.int8]  # (B, steps done)
    seconds: float  # spent in the sampler


@dataclass(frozen=True)
class View:
    """How far a job is."""

    state: Literal["waiting", "running", "done", "cancelled", "failed"] = "waiting"
    step: int = 0  # steps done
    seconds_left: float | None = None
    full: Side | None = None
    early: Side | None = None
    error: str = ""

    @property
    def active(self) -> bool:
        """Whether more is to come."""
        return self.state in ("waiting", "running")


class Job:
    """One live sampling job. Raises UserError at once for settings that make no sense."""

    def __init__(self, model: EarlyExitModel, schedule: Schedule, settings: Settings):
        self.settings, self.num_blocks = settings, model.num_blocks
        self.view = View()
        self.cost: Cost | None = None  # known once the worker has counted it
        self._policy = make_policy(settings.policy)
        self.evaluates_uems = self._policy.needs_uncertainty
        self._model, self._schedule = model, schedule
        self.timesteps = make_solver(settings.solver, schedule, settings.steps).timesteps
        self._twins = [self._sample(Never()), self._sample(self._policy)]
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live sampling", daemon=True)

    def start(self) -> Job:
        """Returns at once."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Stops before the next step; what was sampled stays to be looked at."""
        self._cancel.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end."""
        self._thread.join(timeout)

    def _sample(self, policy: ExitPolicy, steps: int | None = None) -> Iterator[Step]:
        s, batch = self.settings, max(1, self.settings.num_samples)
        steps = steps or s.steps
        return sample(self._model, s.num_samples, policy, s.solver, steps, s.seed, batch, schedule=self._schedule)

    def _work(self) -> None:
        try:
            while not DEVICE.acquire(timeout=0.1):
                if self._cancel.is_set():
                    self.view = replace(self.view, state="cancelled")
                    return
            try:
                self._denoise()
            finally:
                DEVICE.release()
        except Exception as error:  # a thread has nobody to raise to: the page shows the sentence
            known = isinstance(error, UserError)
            sentence = str(error) if known else f"Sampling failed ({type(error).__name__}: {error})."
            self.view = replace(self.view, state="failed", error=sentence)

    def _denoise(self) -> None:
        self.view = replace(self.view, state="running")
        self.cost = sampling_cost(self._model, self._policy, self.timesteps, guidance=None)
        for policy in (Never(), self._policy):  # the first pass is slower: keep it out of the seconds
            if not self._cancel.is_set():
                next(self._sample(policy, steps=1))
        sides: list[Side | None] = [None, None]
        begin = time.perf_counter()
        for step in range(self.settings.steps):
            for which in (0, 1) if step % 2 == 0 else (1, 0):  # neither twin is always the first
                if self._cancel.is_set():
                    self.view = replace(self.view, state="cancelled", seconds_left=None)
                    return
                sides[which] = self._advance(which, sides[which], last=step == self.settings.steps - 1)
            left = (time.perf_counter() - begin) / (step + 1) * (self.settings.steps - step - 1)
            self.view = replace(self.view, step=step + 1, seconds_left=left, full=sides[0], early=sides[1])
        self.view = replace(self.view, state="done", seconds_left=0.0)

    def _advance(self, which: int, before: Side | None, last: bool) -> Side:
        """One step of one twin. Bringing the images to the CPU ends the timing, so a GPU has to finish."""
        tick = time.perf_counter()
        step = next(self._twins[which])
        images = to_uint8(step.x if last else step.x0).cpu().numpy()
        seconds = time.perf_counter() - tick
        exits = step.exit_layer.numpy().astype(np.int8)[:, None]
        if before is None:
            return Side(images, exits, seconds)
        return Side(images, np.concatenate([before.exit_layers, exits], axis=1), before.seconds + seconds)

    def gflops(self, side: Side, early: bool) -> float | None:
        """Mean per image and step, counted from the exits so far."""
        if self.cost is None:
            return None
        if not early:
            return self.cost.full
        layers = np.arange(self.num_blocks + 1)
        counts = (side.exit_layers[:, :, None] == layers).sum(axis=0)  # (steps so far, N+1)
        return self.cost.mean_gflops(counts, with_uem=self.evaluates_uems)
