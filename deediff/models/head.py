"""Kinds of a single output head, one line of `HEAD_KINDS` each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from deediff.models.backbone import Backbone

HEAD_KINDS: dict[str, Callable[[Backbone, int, int], nn.Module]] = {  # from a backbone, its timesteps and the layer
    "linear": lambda net, num_timesteps, layer: net.make_head(layer),
    "timestep": lambda net, num_timesteps, layer: net.make_timestep_head(num_timesteps),
    # A side branch (BranchyNet, arXiv 1709.01686): one small block, then the linear head.
    "branch": lambda net, num_timesteps, layer: nn.Sequential(net.make_branch(), net.make_head(layer)),
}


def read_head(head: nn.Module, state: Tensor, t: Tensor) -> Tensor:
    """Prediction (B,C,H,W) of a head from the input state (B, …) of a block and the timesteps (B,)."""
    prediction: Tensor = head(state, t) if getattr(head, "reads_timestep", False) else head(state)
    return prediction
