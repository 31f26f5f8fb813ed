"""A model as a walk through it needs it: what does not change between steps, looked up once.

On a few samples, looking things up would cost as much as computing with them.
"""

from __future__ import annotations

from torch import Tensor

from deediff.models import EarlyExitModel


class Network:
    """The parts of a model by number; of its weights as they are now."""

    def __init__(self, model: EarlyExitModel):
        backbone, self.model, self.num_blocks = model.backbone, model, model.num_blocks
        self.device = next(model.parameters()).device
        self.embed, self.block, self.read_out = backbone.embed, backbone.block, model.read_out
        self.skip_source = [backbone.skip_source(i) for i in range(self.num_blocks)]
        self.is_source = [i in self.skip_source for i in range(self.num_blocks)]
        self.asked_layers = frozenset(() if model.uem is None else model.uem.layers)
        # On other devices a UEM has to be kept out of autocast, and time is lost elsewhere.
        on_cpu = self.device.type == "cpu" and model.uem is not None
        self._probes = {i: model.uem.probe(i) for i in self.asked_layers} if on_cpu and model.uem is not None else {}

    def uncertainty(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """u of a layer that has a UEM: (B, …), (B,) → (B,)."""
        probe = self._probes.get(layer)
        return self.model.uncertainty(layer, state, t) if probe is None else probe(state, t)
