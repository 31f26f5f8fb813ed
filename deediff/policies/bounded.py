"""Bounds on the exit layer of any other policy."""

from __future__ import annotations

from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState
from deediff.policies.remembering.signal import SignalPolicy


class Bounded(ExitPolicy):
    """Another policy without exits before layer `lowest`, and with an exit at `highest` at the latest."""

    def __init__(self, inner: ExitPolicy, lowest: int = 0, highest: int | None = None):
        if lowest < 0 or (highest is not None and highest < lowest):
            raise UserError(f"layers run from {lowest} to {highest}, expected 0 ≤ min ≤ max")
        self.inner, self.lowest, self.highest = inner, lowest, highest
        bounds = [f"min:{lowest}"] * (lowest > 0) + [f"max:{highest}"] * (highest is not None)
        self.spec, self.content, self.seed = ",".join([inner.spec, *bounds]), inner.content, inner.seed
        self.needs_uncertainty, self.decides_for_batch = inner.needs_uncertainty, inner.decides_for_batch
        self.recording, self.remembers, self.reads_heads = inner.recording, inner.remembers, inner.reads_heads
        self.needs_lowest_uncertainty = inner.needs_lowest_uncertainty

    @property
    def signaller(self) -> SignalPolicy | None:
        return self.inner.signaller

    def should_exit(self, state: LayerState) -> Tensor | bool:
        if state.layer < self.lowest:
            return False
        if self.highest is not None and state.layer >= self.highest:
            return True
        return self.inner.should_exit(state)

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        if max(self.lowest, self.highest or 0) > model.num_blocks:
            raise UserError(
                f"policy {self.spec} names a layer beyond the end of this model: it has {model.num_blocks} blocks"
            )
        self.inner.check(model, schedule)
        if self.highest is not None:
            self.check_layer(model, self.highest)
        if any(layer < self.lowest for layer in self.inner.fixed_exit_layers(model)):  # exits there move to the bound
            self.check_layer(model, self.lowest)

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        return Bounded(self.inner.prepared(model, solver, guidance), self.lowest, self.highest)

    def network(self, timestep: int) -> EarlyExitModel | None:
        return self.inner.network(timestep)

    def possible_exits(self, model: EarlyExitModel) -> set[int]:
        highest = model.num_blocks if self.highest is None else self.highest
        found = {min(max(layer, self.lowest), highest) for layer in self.inner.possible_exits(model)}
        return (found | {highest}) - {model.num_blocks}

    def read_out_by_others(self) -> ExitPolicy:
        return Bounded(self.inner.read_out_by_others(), self.lowest, self.highest)
