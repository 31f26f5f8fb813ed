"""`deediff evaluate`: how good a trace's images are."""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deediff.cli.command import DEVICE, Result, argument, command
from deediff.quality.evaluate import Evaluator
from deediff.quality.metrics import METRICS
from deediff.quality.paired import Difference, quality_difference
from deediff.quality.progress import Progress
from deediff.quality.results import Quality

DETECTABLE = "detectable: the true difference that this number of images detects with 80 % power"


@command(
    "evaluate",
    "image quality: Fréchet and kernel distances, precision and recall, with intervals and floors",
    argument("traces", nargs="+", help="trace folders or URLs; the later ones are also compared with the first"),
    argument("--metrics", default="", help=f"comma-separated: {', '.join(METRICS)}; default: the fd- that fits"),
    argument(
        "--reference",
        default=None,
        help="cifar10-train, cifar10-test, mnist-train, mnist-test, or a folder of images; default: what the run "
        "was trained on",
    ),
    argument("--held-out", default=None, help="real images for the floor; default: the reference's other split"),
    argument("--data-root", type=Path, default=None, help="folder with the data set in torchvision's layout"),
    argument("--weights", type=Path, default=None, help="an extractor's weights, or a folder of such files"),
    DEVICE,
)
def evaluate(args: argparse.Namespace) -> Result:
    """Measure each trace into its quality.json."""
    with tqdm(unit="image", disable=None, mininterval=0.5) as bar:

        def on_progress(what: str, done: int, total: int) -> None:
            bar.set_description(what)
            bar.total, bar.n = total, done
            bar.refresh()

        metrics = [name for name in args.metrics.split(",") if name]
        evaluator = Evaluator(
            metrics, args.reference, args.held_out, args.data_root, args.weights, args.device, Progress(on_progress)
        )
        found = {Path(path).name: evaluator.evaluate(path) for path in args.traces}
    for problem in evaluator.problems:
        print(f"note: {problem}", file=sys.stderr)
    rows = [_row(trace, quality) for trace, results in found.items() for quality in results]
    quality = [entry for results in found.values() for entry in results]
    return {
        "quality": rows,
        "intervals": "; ".join(dict.fromkeys(entry.interval for entry in quality)),
        "floors": "; ".join(dict.fromkeys(entry.floor_source for entry in quality)),
        "differences": _differences(found),
        "note": "" if len(found) == 1 else DETECTABLE,
    }


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
