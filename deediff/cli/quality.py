"""`deediff evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from tqdm import tqdm
from tyro.conf import arg

from deediff.cli.command import PhotoCommand, Result, Traces, defaults_to
from deediff.quality.evaluate import Evaluator
from deediff.quality.metrics import METRICS
from deediff.quality.paired import Difference, quality_difference
from deediff.quality.progress import Progress
from deediff.quality.results import Quality
from deediff.settings import Device

DETECTABLE = "detectable: the smallest true difference that this number of images shows with 80 % power"
METRICS_HELP = f"Comma-separated, out of {', '.join(METRICS)}."


@dataclass(frozen=True, kw_only=True)
class Evaluate(PhotoCommand):
    """Image quality: Fréchet and kernel distances, precision and recall, with intervals and floors.

    Results are written into the traces. With several traces, each is also compared with the first.
    """

    traces: Traces
    """Trace folders or URLs."""
    metrics: Annotated[str, arg(help=METRICS_HELP), defaults_to("the fd- metric of the data set")] = ""
    reference: Annotated[str | None, defaults_to("the training data set")] = None
    """cifar10-train, cifar10-test, mnist-train, mnist-test, or a folder of images."""
    held_out: Annotated[str | None, defaults_to("the reference's other split")] = None
    """Real images for the floor."""
    data_root: Annotated[Path | None, defaults_to("a cache folder")] = None
    """Folder with the data set in torchvision's layout."""
    weights: Annotated[Path | None, defaults_to("shipped, found or downloaded")] = None
    """Weights of an extractor, or a folder of such files."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """Write each trace's quality.json, and report differences from the first trace."""
        with tqdm(unit="image", disable=None, mininterval=0.5) as bar:

            def on_progress(description: str, done: int, total: int) -> None:
                bar.set_description(description)
                bar.total, bar.n = total, done
                bar.refresh()

            metrics = [name for name in self.metrics.split(",") if name]
            sources = (self.reference, self.held_out, self.data_root, self.weights, self.device)
            evaluator = Evaluator(metrics, *sources, Progress(on_progress), photos=self.photos)
            found = {name: evaluator.evaluate(path) for name, path in _named(self.traces).items()}
        for problem in evaluator.problems:
            print(f"note: {problem}", file=sys.stderr)
        quality = [entry for results in found.values() for entry in results]
        return {
            "quality": [_row(trace, quality) for trace, results in found.items() for quality in results],
            "intervals": "; ".join(dict.fromkeys(entry.interval for entry in quality)),
            "floors": "; ".join(dict.fromkeys(entry.floor_source for entry in quality)),
            "differences": _differences(found),
            "note": "" if len(found) == 1 else DETECTABLE,
        }


def _named(paths: Sequence[str]) -> dict[str, str]:
    """The traces by name; by path where two of different runs have the same name."""
    names = {Path(path).name: path for path in paths}
    return names if len(names) == len(set(paths)) else {path: path for path in paths}


def _row(trace: str, quality: Quality) -> dict[str, Any]:
    row: dict[str, Any] = {"trace": trace, "metric": quality.metric, "value": _interval(quality)}
    names = ("floor", "floor_spread", "images", "reference", "reference_images", "extractor", "device")
    return row | {name: getattr(quality, name) for name in names}


def _interval(found: Quality | Difference) -> dict[str, Any]:
    return {"value": found.value, "low": found.low, "high": found.high}


def _differences(found: dict[str, list[Quality]]) -> list[dict[str, Any]]:
    """The later traces minus the first, metric by metric."""
    (first, base), *others = found.items()
    rows = []
    for (name, results), one in product(others, base):
        for other in results:
            if other.protocol == one.protocol and other.without and one.without:
                d = quality_difference(other, one)
                verdict = "inside the noise" if d.inside_noise else "differs"
                row: dict[str, Any] = {"difference": f"{name} − {first}", "metric": d.metric, "value": _interval(d)}
                rows.append(row | {"verdict": verdict, "detectable": d.detectable, "paired": d.paired})
    return rows
