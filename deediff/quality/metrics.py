"""The metrics by the names of `--metrics`: the extractor and the measure of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deediff.errors import UserError
from deediff.quality.frechet import FeatureMoments, frechet
from deediff.quality.jackknife import GROUPS, LEAST, Features, Groups, JackknifeEstimate
from deediff.quality.kernels import cmmd, kid
from deediff.quality.manifold import precision_recall
from deediff.quality.references import KEPT, Reference

Measure = Callable[[Features, Groups | None, Reference], dict[str, JackknifeEstimate]]
JACKKNIFE = "95 %, delete-a-group jackknife over 20 groups"
BIASED = f"{JACKKNIFE}; the bias of N images is in value and floor alike"


@dataclass(frozen=True)
class Metric:
    """One name of `--metrics`; it may measure several numbers at once."""

    extractor: str
    measure: Measure
    note: str = JACKKNIFE  # on the interval
    most: int | None = KEPT  # images of a trace that are used, a random subset; None: all
    infinity: bool = False  # can be extrapolated to infinitely many images
    share: bool = False  # a share in [0, 1]; higher is better


def _frechet(extractor: str, name: str) -> Metric:
    def measure(x: Features, groups: Groups | None, real: Reference) -> dict[str, JackknifeEstimate]:
        return {name: frechet(x, groups, real.gaussian)}

    return Metric(extractor, measure, BIASED, most=None, infinity=True)


def _kid(extractor: str, name: str) -> Metric:
    return Metric(extractor, lambda x, groups, real: {name: kid(x, groups, real.features, real.kid_within)})


def _prc(extractor: str, suffix: str = "") -> Metric:
    def measure(x: Features, groups: Groups | None, real: Reference) -> dict[str, JackknifeEstimate]:
        precision, recall = precision_recall(x, groups, real.features, real.radii)
        return {f"precision{suffix}": precision, f"recall{suffix}": recall}

    return Metric(extractor, measure, share=True)


METRICS = {
    "fid": _frechet("inception-v3", "fid"),
    "kid": _kid("inception-v3", "kid"),
    "cmmd": Metric(
        "clip-vit-l-14-336",
        lambda x, groups, real: {"cmmd": cmmd(x, groups, real.features, real.cmmd_within)},
        BIASED,
    ),
    "prc": _prc("vgg16"),
    "fd-pixels": _frechet("pixels", "fd-pixels"),
    "fd-cifar": _frechet("fd-cifar", "fd-cifar"),
    "kid-cifar": _kid("fd-cifar", "kid-cifar"),
    "prc-cifar": _prc("fd-cifar", "-cifar"),
    "fd-mnist": _frechet("fd-mnist", "fd-mnist"),
    "kid-mnist": _kid("fd-mnist", "kid-mnist"),
    "prc-mnist": _prc("fd-mnist", "-mnist"),
}
TOGETHER = {"fd-cifar": ("fd-cifar", "kid-cifar"), "fd-mnist": ("fd-mnist", "kid-mnist")}


def expand(names: Sequence[str]) -> list[str]:
    """Each name once, with the metrics measured together with it. Raises UserError for unknown names."""
    if unknown := [name for name in names if name not in METRICS]:
        raise UserError(f"unknown metric {', '.join(unknown)}: expected some of {', '.join(METRICS)}")
    return list(dict.fromkeys(each for name in names for each in TOGETHER.get(name, (name,))))


def reference_errors(metric: Metric, features: Features, real: Reference) -> dict[str, float]:
    """Standard error of each of the metric's values, by leaving out groups of the reference instead of the trace.

    The metrics are symmetric, but for precision and recall, which change places. `features` are those of the trace,
    (n, D). A reference of more images than single features are kept of has a smaller error, by the root of their
    ratio. Empty where no single features are kept.
    """
    kept = len(real.features)
    if kept < LEAST:
        return {}
    origin = np.asarray(real.gaussian.mean)
    gaussian = FeatureMoments.of(features, origin).gaussian(origin)
    generated = Reference("", "", len(features), gaussian, np.asarray(features) if metric.most else features)
    exchanged = metric.measure(np.asarray(real.features), np.arange(kept) % GROUPS, generated)
    scale = (kept / real.count) ** 0.5
    return {_partner(name): scale * estimate.error for name, estimate in exchanged.items()}


def _partner(name: str) -> str:
    """precision for recall and the reverse; other metrics themselves."""
    for one, other in (("precision", "recall"), ("recall", "precision")):
        if name.startswith(one):
            return other + name.removeprefix(one)
    return name
