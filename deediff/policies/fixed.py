"""A static exit: one layer for all samples and steps."""

from __future__ import annotations

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState


class Fixed(ExitPolicy):
    """Every sample exits at the same layer at every step; no UEM is evaluated."""

    def __init__(self, layer: int):
        if layer < 0:
            raise UserError(f"policy fixed:{layer} exits at layer {layer}, expected 0 … the number of blocks")
        self.layer = layer
        self.spec = f"fixed:{layer}"

    def should_exit(self, state: LayerState) -> bool:
        return state.layer >= self.layer  # above it when a bound forbids the exit at `layer`

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        return {self.layer}

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        if self.layer > model.num_blocks:
            raise UserError(
                f"policy {self.spec}: this model has only {model.num_blocks} blocks; choose a layer up to that"
            )
        self.check_layer(model, self.layer)
