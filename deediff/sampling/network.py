"""A model prepared for many evaluations: on few samples, looking its parts up would cost as much as computing."""

from __future__ import annotations

from itertools import groupby

from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.models.uvit_cpu import prepared_block
from deediff.sampling.micro_batch import concatenate


class Network:
    """The parts of a model by number, with its present weights."""

    def __init__(self, model: EarlyExitModel):
        backbone, self.model, self.num_blocks = model.backbone, model, model.num_blocks
        self.block = [prepared_block(backbone, i) for i in range(self.num_blocks)]
        self.skip_source = [backbone.skip_source(i) for i in range(self.num_blocks)]
        self.is_source = [i in self.skip_source for i in range(self.num_blocks)]
        self.uem_layers = frozenset(() if model.uem is None else model.uem.layers)
        on_cpu = next(model.parameters()).device.type == "cpu"  # elsewhere a UEM has to be kept out of autocast
        self._probes = {i: model.uem.probe(i) for i in self.uem_layers} if on_cpu and model.uem is not None else {}

    def uncertainty(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """u of a layer that has a UEM: (B, …), (B,) → (B,)."""
        probe = self._probes.get(layer)
        return self.model.uncertainty(layer, state, t) if probe is None else probe(state, t)

    def read_out(self, parts: list[tuple[int, Tensor]]) -> Tensor:
        """Predictions of several exits: (layer, (n, …) state), equal layers next to each other → (Σn,C,H,W)."""
        groups = [(layer, concatenate([state for _, state in same])) for layer, same in groupby(parts, lambda p: p[0])]
        return concatenate([self.model.read_out(layer, state) for layer, state in groups])
