"""What a command is: a function from parsed arguments to a result, under the list of its arguments.

    @command("name", "one line of help", argument("path"), argument("--count", type=positive, default=3))
    def name(args): ...

in any module of `entry.MODULES` is all it takes to add one; "bench name" puts it into the group `bench`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from deediff.checkpoints import load_checkpoint
from deediff.devices import DEVICES
from deediff.diffusion.schedule import Schedule
from deediff.models import PRESETS, EarlyExitModel, make_backbone
from deediff.traces.reader import Trace, read_trace

Result = dict[str, Any]  # what --json prints
Run = Callable[[argparse.Namespace], Result | str]  # a string is printed as it is
Argument = tuple[tuple[str, ...], dict[str, Any]]  # what argparse's add_argument takes


@dataclass(frozen=True)
class Command:
    """One command of the command line."""

    name: str  # "sample", or "bench sampler" for one of a group
    help: str
    arguments: tuple[Argument, ...]
    run: Run

    def add_to(self, group: Any) -> None:
        """Put it into argparse's subparsers."""
        parser = group.add_parser(
            self.name.split()[-1],
            help=self.help,
            description=self.help,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        parser.set_defaults(function=self.run)
        parser.add_argument("--json", action="store_true", help="print the result as JSON")
        for flags, options in self.arguments:
            parser.add_argument(*flags, **options)


def command(name: str, help: str, *arguments: Argument) -> Callable[[Run], Command]:
    """Decorates a function into a command."""
    return lambda run: Command(name, help, arguments, run)


def argument(*flags: str, **options: Any) -> Argument:
    """One argument, as in argparse."""
    return flags, options


DEVICE = argument("--device", default="auto", choices=DEVICES, help="auto: CUDA (in bf16), else MPS, else the CPU")


def positive(text: str) -> int:
    """A whole number ≥ 1, for argparse."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def number(value: Any) -> Any:
    """A number, or an estimate (a dataclass with a `value`) as a dict; None for NaN, which JSON has not."""
    if is_dataclass(value) and not isinstance(value, type):
        content = asdict(value)
        return None if math.isnan(content["value"]) else {key: number(part) for key, part in content.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def open_trace(path: str) -> Trace:
    """Read a trace and say on stderr what of it was ignored."""
    trace = read_trace(path)
    for problem in trace.problems:
        print(f"note: {problem}", file=sys.stderr)
    return trace


def open_schedule(name: str) -> Schedule:
    """The noise that the same model was trained on."""
    return Schedule() if name in PRESETS else Schedule(**load_checkpoint(Path(name))[1]["schedule"])


def open_model(name: str, uem: str) -> EarlyExitModel:
    """A checkpoint's model, or a preset with random weights and exits."""
    if name in PRESETS:
        return EarlyExitModel(make_backbone(PRESETS[name])).add_exits({"name": uem, "scope": "layer"})
    return load_checkpoint(Path(name))[0]
