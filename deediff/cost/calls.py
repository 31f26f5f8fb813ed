"""The components of a model as calls that can be run, counted and timed one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deediff.models import EarlyExitModel
from deediff.models.uems import NetworkShape, build_uem


@dataclass(frozen=True)
class ComponentCall:
    """A component as a call: a method of a module with its arguments."""

    owner: nn.Module
    method: str
    arguments: tuple[Any, ...]
    inputs: tuple[Tensor, ...]

    def run(self, *inputs: Tensor) -> Tensor:
        """The output for the stored inputs, or for others of the same shapes."""
        return getattr(self.owner, self.method)(*self.arguments, *(inputs or self.inputs))


@torch.no_grad()
def component_calls(model: EarlyExitModel, batch: int = 1) -> dict[str, ComponentCall]:
    """Component name → call on zeros, in the order of execution; UEM and head i come before block i."""
    net = model.backbone
    device = next(net.parameters()).device
    x = torch.zeros(batch, *model.image_shape, device=device)
    t = torch.zeros(batch, dtype=torch.int64, device=device)
    labels = (torch.zeros_like(t),) if net.num_classes else ()
    states = list(net.states(x, t, *labels))
    calls = {"patch embedding": ComponentCall(net, "embed", (), (x, t, *labels))}
    for i in range(model.num_blocks):
        if model.uem is not None and i in model.uem.layers:
            shape = NetworkShape.of(net)
            single = build_uem({**model.uem.config(), "layers": [i]}, shape).to(device)  # without the other layers
            calls[f"UEM {i}"] = ComponentCall(single, "forward", (i,), (states[i], t))
        if model.heads is not None:
            calls[f"head {i}"] = ComponentCall(model, "read_out", (i,), (states[i], t))
        source = net.skip_source(i)
        skip = () if source is None else (states[source + 1],)
        calls[f"block {i}"] = ComponentCall(net, "block", (i,), (states[i], *skip))
    calls["final layers"] = ComponentCall(net, "decode", (), (states[-1],))
    return calls
