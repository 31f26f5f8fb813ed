"""Exit layers or thresholds that vary over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState


class _OverTime(ExitPolicy):
    """One value for each of a number of equal ranges of timesteps, from t = 0 upward."""

    def __init__(self, spec: str, ranges: int, num_timesteps: int):
        self.spec, self.ranges, self.num_timesteps = spec, ranges, num_timesteps

    def range_of(self, timestep: int) -> int:
        """The index of the range that holds this timestep."""
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

    needs_heads = False  # only at the layers of the schedule

    def __init__(self, spec: str, layers: list[int], num_timesteps: int, num_blocks: int | None = None):
        super().__init__(spec, len(layers), num_timesteps)
        self.layers, self.num_blocks = layers, num_blocks  # of the network that the layers refer to

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

    def __init__(self, spec: str, table: NDArray[np.float32], num_timesteps: int):  # (ranges, N) or (ranges, 1)
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
