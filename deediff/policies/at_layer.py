"""Another policy, asked at one layer only."""

from __future__ import annotations

from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState
from deediff.policies.remembering.signal import SignalPolicy


class AtLayer(ExitPolicy):
    """Exit at `layer` where `inner` would exit there, else not at all: for readouts that need one exit layer."""

    def __init__(self, inner: ExitPolicy, layer: int):
        self.inner, self.layer, self.spec, self.remembers = inner, layer, inner.spec, inner.remembers
        self.needs_uncertainty, self.decides_for_batch = inner.needs_uncertainty, inner.decides_for_batch
        self.needs_lowest_uncertainty = inner.needs_lowest_uncertainty

    @property
    def signaller(self) -> SignalPolicy | None:
        return self.inner.signaller

    def should_exit(self, state: LayerState) -> Tensor | bool:
        return self.inner.should_exit(state) if state.layer == self.layer else False

    def possible_exits(self, model: EarlyExitModel) -> set[int]:
        return {self.layer}
