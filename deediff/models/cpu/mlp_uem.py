"""MLP UEMs on a CPU, without gradients: one product, a sigmoid and a mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from deediff.models.early_exit import EarlyExitModel
from deediff.models.uems import MLPUncertainty

UEMCall = Callable[[Tensor, Tensor], Tensor]


def prepared_uem(model: EarlyExitModel, layer: int) -> UEMCall:
    """`model.uncertainty(layer, …)` without gradients, for many calls between which neither weights nor modules change.

    Fewer operators where the UEM is a plain one on a CPU: on small micro-batches their calls cost more than their work.
    """
    uem = model.uem
    if type(uem) is MLPUncertainty and _is_plain(uem):
        return _product(uem, layer)
    return partial(model.uncertainty, layer)


def _is_plain(uem: MLPUncertainty) -> bool:
    """Whether u is the mean over all tokens of one linear map per layer, on a CPU, with no hook registered."""
    plain = uem.scope == "layer" and uem.tokens == "all" and not uem.timestep_embedding and uem.aggregation != "max"
    return plain and uem.weight.device.type == "cpu" and not (uem._forward_pre_hooks or uem._forward_hooks)


def _product(uem: MLPUncertainty, layer: int) -> UEMCall:
    position = uem.layers.index(layer)
    weight, bias = uem.weight[position, : uem.shape.dim_of(layer)], uem.bias[position]  # (D,), scalar

    def run(state: Tensor, t: Tensor) -> Tensor:  # (B, L, D), (B,) → (B,)
        u = torch.addmv(bias, state.flatten(0, 1), weight).sigmoid_().view(state.shape[:2])
        return u.mv(_mean(u.shape[1], u.dtype))

    return run


@cache
def _mean(length: int, dtype: torch.dtype) -> Tensor:
    """(L,) weights of a mean, as a product in half the time of `Tensor.mean`."""
    return torch.full((length,), 1 / length, dtype=dtype)
