"""Operation counts of one component, by fvcore with handles for the operators that it does not know.

Those are fused attention, batched products with a bias, and elementwise operators. Like fvcore, everything here is
in multiply-accumulates (MACs).
"""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from deediff.cost.calls import ComponentCall


def count_operations(call: ComponentCall) -> Counter[str]:
    """Operator → MACs; "attention": MACs of the attention products; "layer_norm" and "elementwise": operations."""
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    logging.getLogger("torch.jit").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        counter = FlopCountAnalysis(_Traced(call), call.inputs).set_op_handle(**HANDLES)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return counter.by_operator()


class _Traced(nn.Module):
    """A module whose forward is a component's method: fvcore traces modules only."""

    def __init__(self, call: ComponentCall):
        super().__init__()
        self.owner, self.call = call.owner, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call.run(*inputs)


Handle = Callable[[list[Any], list[Any]], Counter[str]]


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """q kᵀ and its product with v: 2 · batch · heads · Lq · Lk · head_dim MACs; and the softmax between them."""
    (*batch, queries, dim), keys = get_shape(inputs[0]), get_shape(inputs[1])[-2]
    scores = math.prod(batch) * queries * keys
    return Counter({"attention": 2 * scores * dim, "elementwise": 5 * scores})


def _baddbmm(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """(B, 1, M) + (B, L, D) @ (B, D, M): B · L · D · M MACs."""
    return Counter({"bmm": math.prod(get_shape(inputs[1])) * get_shape(inputs[2])[-1]})


def _elementwise(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """One per element of the argument or the result, whichever is larger; nothing for arithmetic on shapes."""
    shapes = (get_shape(inputs[0]), get_shape(outputs[0]))
    return Counter({"elementwise": max(math.prod(shape) if shape else 0 for shape in shapes)})


ARITHMETIC = ("add", "add_", "addcmul", "sub", "mul", "mul_", "div", "div_", "lerp", "exp", "sin", "cos", "clamp")
REDUCTIONS = ("sum", "mean", "amax", "upsample_nearest2d")
ACTIVATIONS = ("gelu", "silu", "sigmoid", "tanh", "relu")
HANDLES: dict[str, Handle] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::baddbmm": _baddbmm,
    **{f"aten::{name}": _elementwise for name in ARITHMETIC + REDUCTIONS + ACTIVATIONS},
}
