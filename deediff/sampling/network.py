"""A model as a walk through it needs it: what does not change between steps, looked up once.

On a few samples, looking things up would cost as much as computing with them.
"""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.sampling.micro_batch import concatenate


class Network:
    """The parts of a model by number; of its weights as they are now."""

    def __init__(self, model: EarlyExitModel):
        backbone, self.model, self.num_blocks = model.backbone, model, model.num_blocks
        self.embed, self.read_out_layer = backbone.embed, model.read_out
        self.block = [backbone.ready_block(i) for i in range(self.num_blocks)]
        self.skip_source = [backbone.skip_source(i) for i in range(self.num_blocks)]
        self.is_source = [i in self.skip_source for i in range(self.num_blocks)]
        self.uem_layers = frozenset(() if model.uem is None else model.uem.layers)
        # On other devices a UEM has to be kept out of autocast, and time is lost elsewhere.
        on_cpu = next(model.parameters()).device.type == "cpu"
        self._probes = {i: model.uem.probe(i) for i in self.uem_layers} if on_cpu and model.uem is not None else {}
        heads = list(model.heads or [])
        self._heads = backbone.ready_heads(heads)
        self._head_of = [min(i, len(heads) - 1) if heads else 0 for i in range(self.num_blocks)] + [len(heads)]

    def uncertainty(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """u of a layer that has a UEM: (B, …), (B,) → (B,)."""
        probe = self._probes.get(layer)
        return self.model.uncertainty(layer, state, t) if probe is None else probe(state, t)

    def read_out(self, parts: list[tuple[int, Tensor]]) -> Tensor:
        """The answers of several exits: layers, the same next to each other, and (n, …) states → (Σn,C,H,W)."""
        groups = [(layer, concatenate([state for _, state in same])) for layer, same in groupby(parts, lambda p: p[0])]
        if self._heads is None or len(groups) == 1:
            return concatenate([self.read_out_layer(layer, state) for layer, state in groups])
        which = [self._head_of[layer] for layer, state in groups for _ in range(len(state))]
        return self._heads(concatenate([state for _, state in groups]), torch.tensor(which))
