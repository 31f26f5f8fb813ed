"""Samples plans and measures them. Every plan draws the same noise, so that differences are those of the plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deediff.datasets import to_uint8
from deediff.devices import device_name
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan
from deediff.quality.evaluate import built_in_metric, training_images
from deediff.quality.extractors import Extractor, load_extractor
from deediff.quality.image_sets import real_images
from deediff.quality.jackknife import Features, group_of
from deediff.quality.metrics import METRICS
from deediff.quality.progress import EvaluationCancelled, Progress
from deediff.quality.references import Reference, reference_of
from deediff.quality.results import Quality
from deediff.sampling.planned import plan_content
from deediff.sampling.sampler import prepare_sampling
from deediff.search.settings import SearchSettings
from deediff.settings import SamplingSettings


@dataclass(frozen=True)
class Draw:
    """Images of a plan."""

    images: Tensor  # (B,C,H,W) float32, within [−1, 1]
    features: Features  # (B, D)


@dataclass(eq=False)
class Judge:
    """One model, one metric and its reference, loaded once."""

    model: EarlyExitModel
    schedule: Schedule
    metric: str  # a distance in METRICS
    extractor: Extractor
    reference: Reference
    batch_size: int = 64
    cancelled: Callable[[], bool] | None = None
    _costs: dict[str, float] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The model's device."""
        return next(self.model.parameters()).device

    def check(self, plan: Plan) -> None:
        """Raises UserError when the model cannot sample by this plan."""
        prepare_sampling(self.model, SamplingSettings(plan=plan), self.schedule)

    def gflops(self, plan: Plan) -> float:
        """GFLOPs of one image. Raises UserError as `check` does."""
        key = plan_digest(plan)
        if key not in self._costs:
            cost = prepare_sampling(self.model, SamplingSettings(plan=plan), self.schedule).cost()
            exits = np.full(len(plan.steps), self.model.num_blocks)
            self._costs[key] = float(cost.of_exits(exits, with_uem=False).sum())
        return self._costs[key]

    def cost(self, plan: Plan) -> float:
        """Cost of one image in evaluations of the full network."""
        return self.gflops(plan) / self.full_gflops

    @property
    def full_gflops(self) -> float:
        """GFLOPs of one evaluation of the full network."""
        return prepare_sampling(self.model, SamplingSettings(), self.schedule).cost().full

    def content(self, plan: Plan) -> str:
        """A digest of the files that a plan reads: other networks, statistics."""
        job = prepare_sampling(self.model, SamplingSettings(plan=plan), self.schedule)
        files = json.dumps(plan_content(job.planned), sort_keys=True)
        return hashlib.sha256(files.encode()).hexdigest()

    def draw(self, plan: Plan, seed: int, samples: range) -> Draw:
        """Sample images. The noise depends on the seed and the numbers of the samples only.

        Raises EvaluationCancelled when `cancelled` returns True.
        """
        settings = SamplingSettings(plan=plan, seed=seed, batch_size=self.batch_size)
        job = prepare_sampling(self.model, settings, self.schedule)
        starts = range(samples.start, samples.stop, self.batch_size)
        parts = [range(start, min(start + self.batch_size, samples.stop)) for start in starts]
        images, features = list[Tensor](), list[Features]()
        for step in job.steps(parts, self.cancelled):
            if step.step == len(plan.steps) - 1:
                images.append(step.x.float().clamp(-1, 1).cpu())
                features.append(self.extractor(to_uint8(step.x)).numpy())
        if sum(map(len, images)) < len(samples):
            raise EvaluationCancelled
        return Draw(torch.cat(images), np.concatenate(features))

    def distance(self, features: Features) -> float:
        """The metric of these features."""
        return METRICS[self.metric].measure(features, None, self.reference)[self.metric].value

    def measure(self, features: Features, seed: int) -> list[Quality]:
        """Every metric of the same features with its interval; `features` are those of samples 0, 1, …"""
        groups, results = group_of(np.arange(len(features))), list[Quality]()
        for name in self.metrics:
            for key, found in METRICS[name].measure(features, groups, self.reference).items():
                low, high = found.interval
                result = Quality(
                    metric=key,
                    extractor=METRICS[name].extractor,
                    value=found.value,
                    low=low,
                    high=high,
                    interval=METRICS[name].note,
                    images=len(features),
                    reference=self.reference.name,
                    reference_key=self.reference.key,
                    reference_images=self.reference.count,
                    floor=None,
                    floor_spread=None,
                    floor_source="",
                    device=device_name(self.device),
                    higher_is_better=METRICS[name].share,
                    without=tuple(found.without.tolist()),
                    seed=seed,
                )
                results.append(result)
        return results

    @property
    def metrics(self) -> list[str]:
        """The metrics of the extractor: the one of the search, and those that are measured with it."""
        others = [name for name, other in METRICS.items() if other.extractor == METRICS[self.metric].extractor]
        return [self.metric, *(name for name in others if name != self.metric)]


def make_judge(
    model: EarlyExitModel, schedule: Schedule, run: Path, settings: SearchSettings, progress: Progress
) -> Judge:
    """Load what a judge needs. Raises UserError when there is no metric that the images can be judged by."""
    channels, size, _ = model.image_shape
    name = settings.metric or built_in_metric((channels, size), "--metric")
    if name not in METRICS or METRICS[name].share:
        known = ", ".join(name for name, found in METRICS.items() if not found.share)
        raise UserError(f"metric {name!r} is not a distance that a search can minimise, expected one of: {known}")
    real = real_images(settings.reference or training_images(run, str(run)), channels, size, settings.data_root)
    extractor = load_extractor(METRICS[name].extractor, next(model.parameters()).device, settings.weights)
    reference = reference_of(real, extractor, progress)
    return Judge(model, schedule, name, extractor, reference, settings.batch_size, progress.cancelled)


def plan_digest(plan: Plan) -> str:
    """Of what a plan does, whatever its name."""
    content = {key: value for key, value in plan.to_json().items() if key != "name"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
