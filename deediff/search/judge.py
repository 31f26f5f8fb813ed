"""Samples plans and measures them. Every plan draws the same noise, so that differences are those of the plans."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
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
from deediff.quality.jackknife import Features, group_of
from deediff.quality.metrics import METRICS
from deediff.quality.progress import EvaluationCancelled, Progress
from deediff.quality.references import Reference, find_reference
from deediff.quality.results import Quality
from deediff.sampling.planned import plan_content
from deediff.sampling.sampler import prepare_sampling
from deediff.search.settings import SearchSettings
from deediff.settings import SamplingSettings

GUARD = "fd-pixels"


@dataclass(frozen=True)
class Draw:
    """Images of a plan."""

    images: Tensor  # (B,C,H,W) float32, within [−1, 1]
    features: Features  # (B, D) of all distances of the judge, side by side


@dataclass(frozen=True, eq=False)
class Distance:
    """A metric of images, and what it is measured with."""

    metric: str  # a distance in METRICS
    extractor: Extractor
    reference: Reference

    @property
    def width(self) -> int:
        """Features per image."""
        return len(self.reference.gaussian.mean)

    @property
    def metrics(self) -> list[str]:
        """The metrics of the extractor: this one, and those that are measured with it."""
        others = [name for name, other in METRICS.items() if other.extractor == METRICS[self.metric].extractor]
        return [self.metric, *(name for name in others if name != self.metric)]


@dataclass(eq=False)
class Judge:
    """One model and the distances by which its plans are judged, loaded once.

    The first distance is the one that a search minimises. The others are guards: see `deediff.search.score`.
    """

    model: EarlyExitModel
    schedule: Schedule
    distances: Sequence[Distance]
    batch_size: int = 64
    cancelled: Callable[[], bool] | None = None
    _costs: dict[str, float] = field(default_factory=dict)

    @property
    def metric(self) -> str:
        """The metric that a search minimises."""
        return self.distances[0].metric

    @property
    def extractor_key(self) -> str:
        """Digest of what the features depend on."""
        return "-".join(distance.extractor.key[:8] for distance in self.distances)

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
            self._costs[key] = plan_gflops(self.model, self.schedule, plan)
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
                pixels = to_uint8(step.x)
                found = [distance.extractor(pixels).numpy() for distance in self.distances]
                features.append(np.concatenate(found, axis=1))
        if sum(map(len, images)) < len(samples):
            raise EvaluationCancelled
        return Draw(torch.cat(images), np.concatenate(features))

    def measured(self, features: Features) -> list[float]:
        """The value of each distance for these images."""
        values = list[float]()
        for distance, part in zip(self.distances, self._parts(features), strict=True):
            found = METRICS[distance.metric].measure(part, None, distance.reference)
            values.append(found[distance.metric].value)
        return values

    def measure(self, features: Features, seed: int) -> list[Quality]:
        """Every metric of the same images with its interval; `features` are those of samples 0, 1, …"""
        results = list[Quality]()
        for distance, part in zip(self.distances, self._parts(features), strict=True):
            results += self._qualities(distance, part, seed)
        return results

    def _parts(self, features: Features) -> list[Features]:
        """The features of each distance."""
        return np.split(features, np.cumsum([distance.width for distance in self.distances])[:-1], axis=1)

    def _qualities(self, distance: Distance, features: Features, seed: int) -> Iterator[Quality]:
        groups, reference = group_of(np.arange(len(features))), distance.reference
        for name in distance.metrics:
            for key, found in METRICS[name].measure(features, groups, reference).items():
                low, high = found.interval
                yield Quality(
                    metric=key,
                    extractor=METRICS[name].extractor,
                    value=found.value,
                    low=low,
                    high=high,
                    interval=METRICS[name].note,
                    images=len(features),
                    reference=reference.name,
                    reference_key=reference.key,
                    reference_images=reference.count,
                    floor=None,
                    floor_spread=None,
                    floor_source="",
                    device=device_name(self.device),
                    higher_is_better=METRICS[name].share,
                    without=tuple(found.without.tolist()),
                    seed=seed,
                )


def make_judge(
    model: EarlyExitModel, schedule: Schedule, run: Path, settings: SearchSettings, progress: Progress
) -> Judge:
    """Load what a judge needs: the metric of the search, and GUARD.

    Raises UserError when there is no metric that the images can be judged by.
    """
    channels, size, _ = model.image_shape
    name = settings.metric or built_in_metric((channels, size), "--metric")
    if name not in METRICS or METRICS[name].share:
        known = ", ".join(name for name, found in METRICS.items() if not found.share)
        raise UserError(f"metric {name!r} is not a distance that a search can minimise, expected one of: {known}")
    real = settings.reference or training_images(run, str(run))
    device, distances = next(model.parameters()).device, list[Distance]()
    for metric in dict.fromkeys((name, GUARD)):
        extractor = load_extractor(METRICS[metric].extractor, device, settings.weights)
        shape, single = (channels, size), metric != GUARD  # the guard is a distance of Gaussians
        reference = find_reference(real, shape, extractor, progress, settings.data_root, single)
        distances.append(Distance(metric, extractor, reference))
    return Judge(model, schedule, distances, settings.batch_size, progress.cancelled)


def plan_gflops(model: EarlyExitModel, schedule: Schedule, plan: Plan) -> float:
    """GFLOPs of one image. Raises UserError when the model cannot sample by the plan."""
    cost = prepare_sampling(model, SamplingSettings(plan=plan), schedule).cost()
    return float(cost.of_exits(np.full(len(plan.steps), model.num_blocks), with_uem=False).sum())


def plan_digest(plan: Plan) -> str:
    """Of what a plan does, whatever its name."""
    content = {key: value for key, value in plan.to_json().items() if key != "name"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
