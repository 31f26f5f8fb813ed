"""Commands of `deediff` as one would type them where the explorer was started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from deediff.settings import SamplingSettings


def typed(path: Path) -> str:
    """A path from the folder in which the explorer was started, if it is inside; quoted where a shell needs it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def sample_command(source: Path, settings: SamplingSettings, out: Path) -> str:
    """Sample a run folder or a checkpoint with these settings."""
    words = ["deediff", "sample", typed(source)]
    planned = ("solver", "steps", "spacing", "timesteps", "clip_x0", "dynamic_threshold", "eta")
    for field in fields(SamplingSettings):
        value = getattr(settings, field.name)
        left_out = field.name.startswith("checkpoint") or (settings.plan is not None and field.name in planned)
        if value == field.default or left_out:
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if field.name == "timesteps":
            words.append(",".join(map(str, value)))
        elif isinstance(value, tuple):
            words += map(str, value)
        elif value is not True:
            words.append(shlex.quote(str(value.name if field.name == "plan" else value)))
    return " ".join([*words, "--out", typed(out)])


def calibrate_command(checkpoint: Path) -> str:
    """Calibrate a checkpoint."""
    return f"deediff calibrate {typed(checkpoint)}"


def evaluate_command(traces: Sequence[Path]) -> str:
    """Evaluate traces."""
    return " ".join(["deediff", "evaluate", *map(typed, traces)])
