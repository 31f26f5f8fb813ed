"""The job: the same seeds with and without early exit, step by step side by side."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.jobs.queue import Job, Session
from deediff.cost.cost import Cost
from deediff.datasets import to_uint8
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from deediff.sampling.sampler import prepare_sampling
from deediff.settings import PolicySpec, SamplingSettings


def short_policy(settings: SamplingSettings) -> str:
    """The plan or the policy, with files and folders by their names alone."""
    if settings.plan is not None:
        return f"plan {settings.plan.name}"
    policy = re.sub(r"[^@:]*/([^/]+)/checkpoints/[^/,]+", r"\1", settings.policy)  # a network by its run
    return re.sub(r"([@:])[^@:]*/([^/,]+)", r"\1\2", policy)


@dataclass(frozen=True)
class Side:
    """Images of one of the two: the full network, or early exit."""

    images: NDArray[np.uint8]  # (B,C,H,W) predicted x0 so far; the images themselves when done
    exit_layers: NDArray[np.int8]  # (B, steps done)
    seconds: float  # spent in the sampler
    remembered: bool = False  # from the cache

    @property
    def step(self) -> int:
        """Steps done."""
        return self.exit_layers.shape[1]


class FullImages:
    """Finished images of the full network, cached by everything they depend on; another threshold reuses them."""

    def __init__(self, most: int = 32):
        self._sides: OrderedDict[tuple[object, ...], Side] = OrderedDict()
        self._most, self._lock = most, threading.Lock()

    def get(self, key: tuple[object, ...]) -> Side | None:
        """None when they are not cached."""
        with self._lock:
            return self._sides.get(key)

    def put(self, key: tuple[object, ...], side: Side) -> None:
        """Evicts the oldest."""
        with self._lock:
            self._sides[key] = side
            if len(self._sides) > self._most:
                self._sides.popitem(last=False)


FULL_IMAGES = FullImages()


class LiveJob(Job):
    """A few images with both. Raises UserError at once for settings that cannot be used."""

    def __init__(
        self,
        session: Session,
        model: EarlyExitModel,
        schedule: Schedule,
        settings: SamplingSettings,  # with one batch of all images
        weights: str,  # run and checkpoint in words
        remember: bool = False,  # take the full network's images from the cache: their seconds are not measured again
    ):
        s = settings
        super().__init__(session, f"{s.num_samples} images, {short_policy(s)}, {s.solver.upper()} {s.steps} steps")
        self.settings, self.weights, self.num_blocks = settings, weights, model.num_blocks
        self.cost: Cost | None = None  # counted by the worker
        self.full: Side | None = None
        self.early: Side | None = None
        self._remember = remember
        full = replace(settings, policy="never", plan=None, readout="head")
        self._jobs = {
            "full": prepare_sampling(model, full, schedule),
            "early": prepare_sampling(model, settings, schedule),
        }
        self.evaluates_uems = self._jobs["early"].policy.needs_uncertainty
        self.timesteps = self._jobs["early"].solver.timesteps
        self._key = (model.origin, id(model), full)
        self._streams = {name: job.steps() for name, job in self._jobs.items()}

    def work(self) -> None:
        steps = self.settings.steps
        self.cost = self._jobs["early"].cost()
        self.full = FULL_IMAGES.get(self._key) if self._remember else None
        sampled = ["early"] if self.full is not None else ["full", "early"]
        for name in sampled:  # warm-up, not timed
            next(self._jobs[name].steps())
        sides: dict[str, Side] = {}
        for step in range(steps):
            for name in sampled if step % 2 == 0 else reversed(sampled):  # neither is always the first
                if self.stopped():
                    return
                sides[name] = self._advance(name, sides.get(name), last=step == steps - 1)
            self.full, self.early = sides.get("full", self.full), sides["early"]
            self.progress(step + 1, steps)
        if "full" in sides:
            FULL_IMAGES.put(self._key, replace(sides["full"], remembered=True))

    def _advance(self, name: str, before: Side | None, last: bool) -> Side:
        """One step of one of the two. Copying the images to the CPU ends the timing, so a GPU has to finish."""
        tick = time.perf_counter()
        step = next(self._streams[name])
        images = to_uint8(step.x if last else step.x0).cpu().numpy()
        seconds = time.perf_counter() - tick
        exits = step.exit_layer.numpy().astype(np.int8)[:, None]
        if before is None:
            return Side(images, exits, seconds)
        return Side(images, np.concatenate([before.exit_layers, exits], axis=1), before.seconds + seconds)

    @property
    def budget(self) -> float | None:
        """GFLOPs per image and step that the policy was given; None for a policy without a budget."""
        policy = PolicySpec.parse(self.settings.policy)
        if self.settings.plan is not None or policy.name not in ("budget", "stopping", "oracle"):
            return None
        return float(policy.argument.partition("@")[0])

    @property
    def policy_title(self) -> str:
        """`short_policy`, with a budget per image, as costs are on screen; the policy itself takes it per step."""
        if self.budget is None:
            return short_policy(self.settings)
        name, _, argument = short_policy(self.settings).partition(":")
        rest = argument.lstrip("0123456789.e-+")  # the trace and the bounds
        return f"{name} of {self.budget * self.settings.steps:.4g} GFLOPs per image{rest}"

    def gflops(self, side: Side, early: bool) -> float | None:
        """Mean per image and step, counted from the exits so far."""
        if self.cost is None:
            return None
        if not early:
            return self.cost.full
        layers = np.arange(self.num_blocks + 1)
        counts = (side.exit_layers[:, :, None] == layers).sum(axis=0)  # (steps so far, N+1)
        return self.cost.mean_gflops(counts, with_uem=self.evaluates_uems)
