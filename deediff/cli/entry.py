"""The `deediff` command: the table of its commands, and the way from a command line to its result.

The module of a command is imported when the command is called, so that `deediff --help` does not import torch.
"""

from __future__ import annotations

import json
from importlib import import_module

from deediff import __version__
from deediff.cli.command import Command
from deediff.cli.parsing import parse_arguments
from deediff.cli.show import as_text
from deediff.errors import UserError

COMMANDS = {  # name: (module and class, what it does)
    "explore": ("explore.Explore", "open the explorer on a folder of runs"),
    "sample": ("sampling.Sample", "sample images into a trace; run it again to resume"),
    "search": ("search.Search", "find sampling plans: timesteps and exits together, validated on other seeds"),
    "evaluate": ("quality.Evaluate", "image quality: distances, precision and recall, with intervals and floors"),
    "compare": ("compare.Compare", "a table of traces: GFLOPs, seconds, quality, and published values"),
    "report": ("explore.Report", "pages of the explorer as one HTML file"),
    "trends": ("traces.Trends", "layer ratio, GFLOPs and exits per threshold, without sampling"),
    "variance": ("traces.Variance", "how much of the exits' variance comes from the timestep, and from the sample"),
    "static": ("traces.Static", "the best static schedule of the same cost, as a file for schedule:FILE"),
    "maps": ("sampling.Maps", "maps of u over the image for samples of a finished trace"),
    "calibrate": ("checkpoints.Calibrate", "u against the real error on held-out images, and maps that correct u"),
    "deviations": ("checkpoints.Deviations", "distance of every exit, and of other networks, from the full network"),
    "flops": ("checkpoints.Flops", "parameters, GMACs, GFLOPs and milliseconds of every component and exit"),
    "import": ("importing.Import", "a U-ViT, DiT, AdaDiff or DuoDiff checkpoint, or published exit layers, as a run"),
    "bench sampler": ("bench.BenchSampler", "speed-up of real exits beside the FLOPs that they save"),
    "bench trace": ("bench.BenchTrace", "share of logging in the sampling time, and the speed of reading traces"),
    "bench train": ("bench.BenchTrain", "images per second with a frozen backbone, beside fine-tuning"),
    "bench app": ("bench.BenchApp", "speed and memory of the explorer in a real browser (Playwright, Chromium)"),
}


def dispatch(words: list[str]) -> None:
    """Parse a command line, run the command and print its result. Raises UserError for bad usage."""
    name = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    if name is not None:
        module, kind = COMMANDS[name][0].split(".")
        command = getattr(import_module(f"deediff.cli.{module}"), kind)
        _execute(parse_arguments(command, words[len(name.split()) :], f"deediff {name}"))
    elif words[:1] == ["--version"]:
        print(f"deediff {__version__}")
    elif words[-1:] in (["--help"], ["-h"]) and (len(words) == 1 or words[:-1] == ["bench"]):
        print(_overview(" ".join(words[:-1])))
    else:
        found = f"unknown command {' '.join(words[:2])!r}" if words else "no command given"
        raise UserError(f"{found}, expected one of: {', '.join(COMMANDS)}; see deediff --help")


def _execute(command: Command) -> None:
    result = command.run()
    print(result if isinstance(result, str) else json.dumps(result) if command.json else as_text(result))


def _overview(group: str) -> str:
    """The commands whose names start with `group`, one a line."""
    lines = [f"  {name:14} {summary}" for name, (_, summary) in COMMANDS.items() if name.startswith(group)]
    usage = f"usage: {' '.join(['deediff', group]).strip()} COMMAND [ARGUMENTS]"
    return "\n".join([usage, "", "Early exit for diffusion models. COMMAND --help explains the arguments.", "", *lines])
