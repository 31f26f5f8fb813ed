"""The commands of `python -m trainer.run`, and their options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from deediff.cli.command import defaults_to
from deediff.cli.parsing import parse_arguments
from deediff.cli.show import as_text
from deediff.errors import UserError
from deediff.settings import Device
from trainer.config import Precision
from trainer.features import FeaturesConfig, train_features
from trainer.loop import Training
from trainer.presets import PRESETS
from trainer.statistics import StatisticsConfig, write_statistics
from trainer.suites.claims import as_markdown, verdicts
from trainer.suites.suite import Suite, overview
from trainer.suites.tables import DESCRIPTIONS

FEATURES = "The classifier behind the metrics fd-cifar and, with --dataset mnist, fd-mnist: a ResNet-20"
STATISTICS = "Statistics of MNIST and CIFAR-10 for fd-mnist, fd-cifar and fd-pixels, which evaluate without images"
CLAIMS = "Published claims, and whether the results of the suites confirm them"


@dataclass(frozen=True)
class SuiteOptions:
    """Train, sample and evaluate every row of a table. Finished work is skipped, the rest is resumed."""

    scale: Literal["cpu", "paper", "toy"] = "cpu"
    """cpu: the included digits, DDIM-50, fd-mnist. paper: U-ViT-S/2 on CIFAR-10, DDPM-1000, FID. toy: for tests."""
    out: Path = Path("runs")
    """Folder of the runs and of the results file."""
    data_root: Annotated[Path | None, defaults_to("a cache folder, with download")] = None
    """Folder with the data set in torchvision's layout."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""
    precision: Precision = "auto"
    """Precision of new trainings; auto: bfloat16 on CUDA, float32 elsewhere."""
    rows: Annotated[tuple[str, ...], defaults_to("all", "NAME [NAME ...]")] = ()
    """Only rows with these names, or with names that contain one of these texts; the results of others are kept."""


@dataclass(frozen=True)
class ClaimsOptions:
    """Compare published claims with the results of the suites, and print a table in Markdown."""

    out: Path = Path("runs")
    """Folder of the results files."""


def run_words(words: list[str]) -> None:
    """Run a command line. Raises UserError for one that cannot be run."""
    if not words:
        raise UserError("no preset given; see python -m trainer.run --help")
    name, *rest = words
    prog = f"python -m trainer.run {name}"
    if name in ("-h", "--help"):
        print(_overview())
    elif name in PRESETS:
        description, default = PRESETS[name]
        config = parse_arguments(type(default), rest, prog, description, default)
        print(f"trained: {Training(name, config).run()}")
    elif name == "features":
        print(f"trained: {train_features(parse_arguments(FeaturesConfig, rest, prog))}")
    elif name == "statistics":
        print("\n".join(map(str, write_statistics(parse_arguments(StatisticsConfig, rest, prog)))))
    elif name.startswith("suite:"):
        options = parse_arguments(SuiteOptions, rest, prog)
        where = (options.out, options.data_root, options.device, options.precision)
        results = Suite(name.removeprefix("suite:"), options.scale, *where).run(options.rows)
        print(as_text({"results": str(results), "rows": overview(results)}))
    elif name == "claims":
        print(as_markdown(verdicts(parse_arguments(ClaimsOptions, rest, prog).out)))
    else:
        known = ", ".join([*PRESETS, "features", "statistics", "suite:NAME", "claims"])
        raise UserError(f"unknown preset {name!r}, expected one of: {known}; see python -m trainer.run --help")


def _overview() -> str:
    groups = {
        "Train:": {name: preset.description for name, preset in PRESETS.items()} | {"features": FEATURES},
        "Data that ships with the metrics:": {"statistics": STATISTICS},
        "Suites, from training to a table beside published values:": {
            f"suite:{name}": description for name, description in DESCRIPTIONS.items()
        },
        "Results of the suites:": {"claims": CLAIMS},
    }
    lines = ["usage: python -m trainer.run NAME [OPTIONS]   (NAME --help explains every option)"]
    for heading, entries in groups.items():
        lines += ["", heading, *(f"  {name:17} {description}" for name, description in entries.items())]
    return "\n".join(lines)
