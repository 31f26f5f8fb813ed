"""First-block cache (ParaAttention, public code): the first block runs, and says whether the others changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from deediff.policies.base import LayerState, PastView
from deediff.policies.remembering.signal import SignalPolicy, read_options, relative_change

FIRST = 1_000_000  # key of the first block's residual in the memory


class FirstBlock(SignalPolicy):
    """Exit at layer 1 while the first block's residual r = h_1 − h_0 differs little from the last full evaluation's.

    The signal is mean|r − r_c| / mean|r_c|. With `batch` both means are over the whole batch, as in the public code:
    for comparison only, since a sample's result then depends on the others.
    """

    signal_layer, order = 1, 0

    def __init__(self, delta: float, cap: int | None = None, batch: bool = False):
        super().__init__("first-block", delta, cap)
        self.decides_for_batch = batch
        self.spec += ",batch" * batch

    def kept_layers(self) -> set[int]:
        """The layers whose states a full evaluation hands to `kept`."""
        return {0, 1}

    def kept(self, states: Mapping[int, Tensor], layers: Collection[int], num_blocks: int) -> dict[int, Tensor]:
        """Layer → state (n, …) → what is stored."""
        return {FIRST: states[1] - states[0]}

    def measured(self, state: LayerState, past: PastView) -> Tensor:
        before = past.stored(FIRST)
        if before is None:
            return torch.full((len(state.samples),), torch.nan, device=past.carried.device)
        return relative_change(past.state(1) - past.state(0), before, past.copies, self.decides_for_batch)


def read_first_block(argument: str) -> FirstBlock:
    """'δ', 'δ,cap:K', 'δ,batch' → policy. Raises UserError, and ValueError when δ is not a number."""
    delta, cap, words = read_options("first-block", argument, ("batch",))
    return FirstBlock(delta, cap, "batch" in words)
