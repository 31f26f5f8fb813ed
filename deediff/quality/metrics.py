"""The metrics by the names of `--metrics`: the extractor and the measure of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deediff.errors import UserError
from deediff.quality.frechet import frechet
from deediff.quality.jackknife import Features, Groups, JackknifeEstimate
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
