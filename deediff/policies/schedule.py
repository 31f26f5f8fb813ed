"""Policies whose numbers stand in a JSON file or a trace: schedules over time and layers, and budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState, Threshold
from deediff.traces.reader import Trace
from deediff.traces.schema import THRESHOLDS

READY_MADE = Path(__file__).parent / "ready_made"  # schedule:NAME instead of schedule:FILE


class _OverTime(ExitPolicy):
    """One value for each of a number of equal ranges of timesteps, from t = 0 upward."""

    def __init__(self, spec: str, ranges: int, num_timesteps: int):
        self.spec, self.ranges, self.num_timesteps = spec, ranges, num_timesteps

    def range_of(self, timestep: int) -> int:
        """Which range holds this timestep."""
        return timestep * self.ranges // self.num_timesteps

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        if schedule is not None and schedule.num_timesteps != self.num_timesteps:
            raise UserError(
                f"policy {self.spec} covers {self.num_timesteps} timesteps, but this model was trained with "
                f"{schedule.num_timesteps}: give num_timesteps in the file"
            )
        if self.needs_heads:
            super().check(model, schedule)


class ScheduledExit(_OverTime):
    """An exit layer per timestep, the same for every sample (ASE, Moon et al. 2024); no UEM is evaluated."""

    needs_heads = False  # but at the layers of the schedule

    def __init__(self, spec: str, layers: list[int], num_timesteps: int, num_blocks: int | None = None):
        super().__init__(spec, len(layers), num_timesteps)
        self.layers, self.num_blocks = layers, num_blocks  # of the network that the layers were given for

    def should_exit(self, state: LayerState) -> bool:
        return state.layer >= self._scaled(self.layers[self.range_of(state.timestep)], state.num_blocks)

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        return {self._scaled(layer, model.num_blocks) for layer in self.layers}

    def _scaled(self, layer: int, num_blocks: int) -> int:
        return layer if self.num_blocks is None else round(layer * num_blocks / self.num_blocks)

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        blocks = self.num_blocks or model.num_blocks
        if max(self.layers) > blocks:
            whose = "its num_blocks is" if self.num_blocks else "this model has only"
            raise UserError(
                f"policy {self.spec} holds exit layer {max(self.layers)}, but {whose} {blocks} blocks: "
                f"give layers 0 … {blocks}"
            )
        super().check(model, schedule)
        for layer in self.fixed_exit_layers(model):
            self.check_layer(model, layer)


class ScheduledThreshold(_OverTime):
    """Exit when u ≤ τ, with a τ per range of timesteps, per layer, or both."""

    needs_uncertainty = True

    def __init__(self, spec: str, table: NDArray[np.float32], num_timesteps: int):  # (ranges, N), (ranges, 1)
        super().__init__(spec, len(table), num_timesteps)
        self.table = table

    def should_exit(self, state: LayerState) -> Tensor:
        assert state.uncertainty is not None
        layer = state.layer if self.table.shape[1] > 1 else 0
        return state.uncertainty <= float(self.table[self.range_of(state.timestep), layer])

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        super().check(model, schedule)
        if self.table.shape[1] not in (1, model.num_blocks):
            raise UserError(
                f"policy {self.spec} holds {self.table.shape[1]} thresholds, expected one per layer: {model.num_blocks}"
            )


def read_schedule(name: str) -> ExitPolicy:
    """A policy from a JSON file, or from the ready-made one of that name.

    It holds one of: `exit_layer` (a list over time; `num_blocks` scales it from a network of that
    depth), `threshold` (a list over time of numbers, or of lists with one number per layer), or
    `layer_threshold` (one number per layer). A list over time starts at t = 0 and is spread evenly
    over `num_timesteps` (default 1000): 1000 values are one per timestep, 10 one per hundred.
    Raises UserError when it is anything else.
    """
    ready = READY_MADE / f"{name}.json"
    file = ready if ready.exists() else Path(name)
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in READY_MADE.glob("*.json")))
        raise UserError(
            f"policy schedule:{name} needs a JSON file, or a ready-made schedule ({known}): {file} is neither"
        )
    content, spec = read_json(file), f"schedule:{name}"
    total, blocks = content.get("num_timesteps", 1000), content.get("num_blocks")
    kinds = [kind for kind in ("exit_layer", "threshold", "layer_threshold") if kind in content]
    if len(kinds) != 1:
        raise UserError(f"{file} holds {kinds or 'none'} of exit_layer, threshold, layer_threshold: give exactly one")
    kind, values = kinds[0], content[kinds[0]]
    sizes = [total] if blocks is None else [total, blocks]
    if not isinstance(values, list) or not values:
        raise UserError(f"{file}: {kind} is {json.dumps(values)[:40]}, expected a list of one number or more")
    if not all(type(n) is int and n > 0 for n in sizes):
        raise UserError(f"{file}: num_timesteps and num_blocks are {sizes}, expected whole numbers from 1")
    if kind != "layer_threshold" and total % len(values):
        raise UserError(
            f"{file}: {kind} has {len(values)} values, which does not divide {total} timesteps evenly: "
            f"give {total}, or as many as equal stretches of them"
        )
    policy: ExitPolicy
    if kind == "exit_layer":
        for value in values:
            if type(value) is not int or value < 0:
                raise UserError(f"{file}: {kind} holds {value!r}, expected layers 0, 1, … the number of blocks")
        policy = ScheduledExit(spec, values, total, blocks)
    else:
        policy = ScheduledThreshold(spec, _table(file, [values] if kind == "layer_threshold" else values), total)
    policy.content = content
    return policy


def _table(file: Path, values: list[Any]) -> NDArray[np.float32]:
    """(ranges, layers) thresholds; a plain number stands for one that holds at every layer."""
    rows = [row if isinstance(row, list) else [row] for row in values]
    for value in (value for row in rows for value in row):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f"{file}: a threshold is {value!r}, expected numbers in [0, 1]")
    if len({len(row) for row in rows}) != 1:
        raise UserError(f"{file}: the lists of thresholds differ in length, expected one number per layer in each")
    return np.asarray(rows, dtype=np.float32)


def budget_threshold(gflops: float, trace: Trace) -> Threshold:
    """The smallest τ at which `trace` promises at most this many GFLOPs per image and step (open loop).

    Raises UserError when it answers no threshold that cheap.
    """
    lowest = trace.what_if_limit
    if lowest is None:
        raise UserError(f"{trace.path} cannot find a threshold for a budget, because {trace.why_no_what_if}")
    cost = float("nan")
    for tau in THRESHOLDS[np.float32(lowest[0]) <= THRESHOLDS]:
        cost = trace.what_if(float(tau)).gflops
        if cost <= gflops:
            return Threshold(round(float(tau), 3))
    raise UserError(f"no threshold costs {gflops:g} GFLOPs or less on {trace.path}: the cheapest is {cost:.4g}")
