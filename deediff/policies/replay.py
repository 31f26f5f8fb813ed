"""Exit layers given in advance, for benchmarks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState


class Replay(ExitPolicy):
    """Exit at given layers, whatever u is; the UEMs are evaluated as for a threshold."""

    needs_uncertainty = True

    spec = "replay"

    def __init__(self, exit_layers: Tensor):  # (samples, steps)
        self.by_step = list(np.ascontiguousarray(exit_layers.cpu().numpy().T))

    def should_exit(self, state: LayerState) -> Tensor:
        exiting = torch.from_numpy(self.by_step[state.step][state.samples] == state.layer)
        # On the device of u, so that the decision is available no earlier than one that depends on u.
        return exiting if state.uncertainty is None else exiting.to(state.uncertainty.device, non_blocking=True)

    def possible_exits(self, model: EarlyExitModel) -> set[int]:
        return {int(layer) for layers in self.by_step for layer in np.unique(layers)} - {model.num_blocks}
