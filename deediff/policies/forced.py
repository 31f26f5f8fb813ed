"""One layer in place of another policy's decision."""

from __future__ import annotations

from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState
from deediff.policies.remembering.signal import SignalPolicy


class Forced(ExitPolicy):
    """Exit at `layer` (0 … N, N: no early exit) where `inner` would decide; the UEMs are evaluated as for `inner`."""

    def __init__(self, inner: ExitPolicy, layer: int):
        self.inner, self.layer, self.spec = inner, layer, f"{inner.spec}, forced to layer {layer}"
        self.needs_uncertainty, self.decides_for_batch = inner.needs_uncertainty, inner.decides_for_batch

    @property
    def signaller(self) -> SignalPolicy | None:
        return self.inner.signaller

    def should_exit(self, state: LayerState) -> bool:
        return state.layer >= self.layer

    def possible_exits(self, model: EarlyExitModel) -> set[int]:
        return {self.layer} - {model.num_blocks}
