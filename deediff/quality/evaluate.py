"""Image quality of a trace: each metric with its interval and its floor, the value that real images reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deediff.datasets import NAMED
from deediff.devices import choose_device, device_name
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.photos.options import AS_SHOWN, PhotoOptions
from deediff.quality.collect import features_of
from deediff.quality.extractors import Extractor, MissingWeights, load_extractor
from deediff.quality.frechet import frechet_infinity
from deediff.quality.image_sets import TraceImages, held_out_of
from deediff.quality.jackknife import LEAST, T_975, Features, Groups, JackknifeEstimate, group_of
from deediff.quality.metrics import METRICS, Metric, expand, reference_errors
from deediff.quality.progress import Progress
from deediff.quality.references import Reference, find_reference
from deediff.quality.results import Quality, write_quality
from deediff.storage import AnyPath
from deediff.traces.reader import Trace, read_trace

FLOOR_DRAWS = 5
FEW = 100  # images below which a distance is measured with a warning
NOISE = "intervals include the noise of the reference"
LEAST_FOR_INFINITY = 5000
BUILT_IN = {(1, 32): "fd-mnist", (3, 32): "fd-cifar"}  # by channels and size; no download needed


@dataclass
class Evaluator:
    """Evaluates traces one after another; extractors, references and floors are computed once."""

    metrics: Sequence[str] = ()  # names of METRICS; none: fd-cifar or fd-mnist, whichever fits
    reference: str | None = None  # cifar10-train, …, or a folder; None: training images of the trace's run
    held_out: str | None = None  # real images for the floor; None: the other split of the reference
    data_root: Path | None = None  # torchvision's folder
    weights: Path | None = None  # file or folder of the extractors' weights
    device: str = "auto"
    progress: Progress = field(default_factory=Progress)
    photos: PhotoOptions = AS_SHOWN  # how folders of images are read
    problems: list[str] = field(default_factory=list)  # a sentence per metric that could not be measured
    _extractors: dict[str, Extractor] = field(default_factory=dict)
    _references: dict[tuple[object, ...], Reference] = field(default_factory=dict)
    _floors: dict[tuple[object, ...], list[dict[str, JackknifeEstimate]]] = field(default_factory=dict)

    def evaluate(self, path: str | AnyPath) -> list[Quality]:
        """Measure a trace; its quality.json is written after each extractor.

        Raises UserError for bad input or when nothing could be measured, `EvaluationCancelled` when cancelled;
        results of earlier extractors are kept.
        """
        trace = read_trace(path)
        images = TraceImages(trace)
        if len(images) < LEAST:
            raise UserError(f"{trace.path} holds {len(images)} images, expected at least {LEAST}")
        names = expand(self.metrics or [built_in_metric(images.shape)])
        reference = self.reference or training_images(trace.path.parent.parent, str(trace.path))
        held_out = self.held_out or held_out_of(reference)
        results: list[Quality] = []
        problems: list[str] = []
        for extractor_name in dict.fromkeys(METRICS[name].extractor for name in names):
            chosen = [name for name in names if METRICS[name].extractor == extractor_name]
            try:
                extractor = self._extractor(extractor_name)
            except MissingWeights as error:
                problems.append(f"{', '.join(chosen)} not measured: {error}")
                continue
            single = not all(METRICS[name].infinity for name in chosen)
            real = self._reference(reference, images, extractor, single)
            problems += few_images(str(trace.path.name), len(images)) + few_images(f"reference {real.name}", real.count)
            floor = self._floor(held_out, images, extractor, problems)
            with features_of(images, extractor, self.progress) as (numbers, features):
                for done, name in enumerate(chosen):
                    self.progress.report(f"{name} of {trace.path.name}", done, len(chosen))
                    results += self._measure(trace, name, features, group_of(numbers), real, floor)
            write_quality(trace.path, results)
        if not results:
            raise UserError("; ".join(problems))
        self.problems += [problem for problem in problems if problem not in self.problems]
        return results

    def _extractor(self, name: str) -> Extractor:
        if name not in self._extractors:
            self._extractors[name] = load_extractor(name, choose_device(self.device), self.weights)
        return self._extractors[name]

    def _reference(self, name: str, like: TraceImages, extractor: Extractor, features: bool = True) -> Reference:
        key = (name, like.shape, extractor.name, features)
        if key not in self._references:
            self._references[key] = find_reference(
                name, like.shape, extractor, self.progress, self.data_root, features, self.photos
            )
        return self._references[key]

    def _floor(
        self, held_out: str | None, like: TraceImages, extractor: Extractor, problems: list[str]
    ) -> Reference | None:
        """The held-out real images; none, with a sentence, where those by default are not on this machine."""
        if held_out is None:
            return None
        try:
            return self._reference(held_out, like, extractor)
        except UserError as error:
            if self.held_out is not None:
                raise
            problems.append(f"no floor of {extractor.name}: {error}")
            return None

    def _measure(
        self, trace: Trace, name: str, features: Features, groups: Groups, real: Reference, floor: Reference | None
    ) -> list[Quality]:
        metric = METRICS[name]
        if metric.most is not None and len(features) > metric.most:  # memory grows with the number of pairs
            chosen = np.sort(np.random.default_rng(0).permutation(len(features))[: metric.most])
            features, groups = features[chosen], groups[chosen]
        count = len(features)
        floors = self._floor_draws(metric, name, count, real, floor)
        size = min(count, len(floor.features)) if floor else 0
        common: dict[str, Any] = {
            "extractor": metric.extractor,
            "images": count,
            "reference": real.name,
            "reference_key": real.key,
            "reference_images": real.count,
            "device": device_name(self._extractors[metric.extractor].device),
            "higher_is_better": metric.share,
            "seed": trace.meta.seed,
        }
        results = []
        noise = reference_errors(metric, features, real)
        scope = NOISE if noise else f"{NOISE.replace('include', 'lack')}, of which single features are not kept"
        for key, estimate in metric.measure(features, groups, real).items():
            half = T_975 * float(np.hypot(estimate.error, noise.get(key, 0.0)))
            low, high = estimate.value - half, estimate.value + half
            draws = [draw[key].value for draw in floors]
            quality = Quality(
                metric=key,
                value=estimate.value,
                low=max(0.0, low) if metric.share else low,
                high=min(1.0, high) if metric.share else high,
                interval=f"{metric.note}; {scope}",
                floor=float(np.mean(draws)) if draws else None,
                floor_spread=float(np.std(draws, ddof=1)) if draws else None,
                floor_source=(
                    f"{FLOOR_DRAWS} draws of {size:,} images of {floor.name}" if floor else "no held-out real images"
                ),
                without=tuple(estimate.without.tolist()),
                **common,
            )
            results.append(quality)
        if metric.infinity and count >= LEAST_FOR_INFINITY:
            value, error = frechet_infinity(features, real.gaussian)
            quality = Quality(
                metric=f"{name}-inf",
                value=value,
                low=value - 1.96 * error,
                high=value + 1.96 * error,
                interval="95 %, of the fit alone; extrapolated to infinitely many images from 15 subsets",
                floor=None,
                floor_spread=None,
                floor_source="none: an extrapolated distance of real images is 0",
                **common,
            )
            results.append(quality)
        return results

    def _floor_draws(
        self, metric: Metric, name: str, count: int, real: Reference, floor: Reference | None
    ) -> list[dict[str, JackknifeEstimate]]:
        """The metric of random subsets of held-out real images, as large as the trace if there are enough."""
        if floor is None:
            return []
        key = (name, count, real.key, floor.key)
        if key not in self._floors:
            rng = np.random.default_rng(0)
            draws = [np.sort(rng.permutation(len(floor.features))[:count]) for _ in range(FLOOR_DRAWS)]
            self._floors[key] = [metric.measure(floor.features[draw], None, real) for draw in draws]
        return self._floors[key]


def few_images(what: str, count: int) -> list[str]:
    """A warning where there are so few images that their noise and bias hide most differences."""
    warning = f"{what} holds {count} images: with fewer than {FEW}, noise and bias hide most differences"
    return [warning] if count < FEW else []


def training_images(run: AnyPath, what: str) -> str:
    """The reference of a run trained on one of NAMED. Raises UserError for others; `what` names what is judged."""
    file = run / "run.json"
    name = read_json(file).get("dataset") if file.exists() else None
    if name not in NAMED:
        raise UserError(f"{what} was not trained on {' or '.join(NAMED)}: name real images with --reference")
    return f"{name}-train"


def built_in_metric(shape: tuple[int, int], option: str = "--metrics") -> str:
    """The metric for images of this many channels and pixels per side. Raises UserError when there is none."""
    if shape not in BUILT_IN:
        raise UserError(f"no built-in metric fits images of shape {shape}: choose with {option}, e.g. fid")
    return BUILT_IN[shape]
