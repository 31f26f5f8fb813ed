"""Schedule files: JSON with exit layers or thresholds over time.

A file holds one of: `exit_layer` (a list over time; with `num_blocks`, the depth of the network that the layers
refer to, they are scaled to the model), `threshold` (a list over time of numbers, or of lists with one number
per layer), or `layer_threshold` (one number per layer). A list over time starts at t = 0 and is spread evenly over
`num_timesteps` (default 1000): 1000 values are one per timestep, 10 one per hundred timesteps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.policies.base import ExitPolicy
from deediff.policies.schedule import ScheduledExit, ScheduledThreshold

READY_MADE = Path(__file__).parent / "ready_made"  # schedule:NAME instead of schedule:FILE
KINDS = ("exit_layer", "threshold", "layer_threshold")


def ready_made() -> list[str]:
    """Names of the schedules that need no file of one's own."""
    return sorted(path.stem for path in READY_MADE.glob("*.json"))


def read_schedule(name: str) -> ExitPolicy:
    """A policy from a JSON file, or from the ready-made schedule of that name. Raises UserError for bad content."""
    file = _find(name)
    content, spec = read_json(file), f"schedule:{name}"
    total, blocks = content.get("num_timesteps", 1000), content.get("num_blocks")
    kind, values = _values(file, content)
    sizes = [total] if blocks is None else [total, blocks]
    if not all(type(n) is int and n > 0 for n in sizes):
        raise UserError(f"{file}: num_timesteps and num_blocks are {sizes}, expected whole numbers from 1")
    if kind != "layer_threshold" and total % len(values):
        raise UserError(
            f"{file}: {kind} has {len(values)} values, which does not divide {total} timesteps evenly: "
            f"give {total} values, or one for each of equal ranges of timesteps"
        )
    policy: ExitPolicy
    if kind == "exit_layer":
        policy = ScheduledExit(spec, _layers(file, values), total, blocks)
    else:
        policy = ScheduledThreshold(spec, _table(file, [values] if kind == "layer_threshold" else values), total)
    policy.content = content
    return policy


def _find(name: str) -> Path:
    ready = READY_MADE / f"{name}.json"
    file = ready if ready.exists() else Path(name)
    if not file.is_file():
        known = ", ".join(ready_made())
        raise UserError(
            f"policy schedule:{name} needs a JSON file, or a ready-made schedule ({known}): {file} is neither"
        )
    return file


def _values(file: Path, content: dict[str, Any]) -> tuple[str, list[Any]]:
    """The one of KINDS that the file holds, and its list."""
    kinds = [kind for kind in KINDS if kind in content]
    if len(kinds) != 1:
        raise UserError(f"{file} holds {kinds or 'none'} of {', '.join(KINDS)}: give exactly one")
    kind, values = kinds[0], content[kinds[0]]
    if not isinstance(values, list) or not values:
        raise UserError(f"{file}: {kind} is {json.dumps(values)[:40]}, expected a list of one number or more")
    return kind, values


def _layers(file: Path, values: list[Any]) -> list[int]:
    for value in values:
        if type(value) is not int or value < 0:
            raise UserError(f"{file}: exit_layer holds {value!r}, expected layers 0, 1, … the number of blocks")
    return values


def _table(file: Path, values: list[Any]) -> NDArray[np.float32]:
    """(ranges, layers) thresholds, or (ranges, 1) from plain numbers, which apply to every layer."""
    rows = [row if isinstance(row, list) else [row] for row in values]
    for value in (value for row in rows for value in row):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"{file}: a threshold is {value!r}, expected numbers in [0, 1]")
    if len({len(row) for row in rows}) != 1:
        raise UserError(f"{file}: the lists of thresholds differ in length, expected one number per layer in each")
    return np.asarray(rows, dtype=np.float32)
