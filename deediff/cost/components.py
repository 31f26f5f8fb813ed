"""What every component of a model computes, for one image and one step.

fvcore does the counting, with handles for what it misses: fused attention, batched products with a
bias, elementwise work. Like it, everything here is in multiply-accumulates (MACs); GFLOPs are 2 × GMACs.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from deediff.cost.cost import Cost
from deediff.models import EarlyExitModel, build_backbone
from deediff.models.uncertainty import Watched, build_uem


@dataclass(frozen=True)
class Component:
    """One component, for one image and one step."""

    name: str
    macs: int  # of linear maps, convolutions and matrix products, without the attention products
    attention_macs: int  # q kᵀ and its product with v
    norm_ops: int  # norms: 5 operations per element, fvcore's estimate
    elementwise_ops: int  # activations, sums and the like: one operation per element, a softmax 5

    def gflops(self, attention: bool = True) -> float:
        """2 × GMACs, with or without the attention products; norms and elementwise work are never in it."""
        return 2 * (self.macs + (self.attention_macs if attention else 0)) / 1e9


@dataclass(frozen=True)
class Components:
    """A model, taken apart."""

    embed: Component
    blocks: list[Component]  # N
    uems: list[Component | None]  # N, None at layers without one; empty without exits
    heads: list[Component]  # N; empty without exits
    decode: Component

    def __iter__(self) -> Iterator[Component]:
        """All of them, in the order in which they run."""
        yield self.embed
        for i, block in enumerate(self.blocks):
            yield from (part for part in (*self.uems[i : i + 1], *self.heads[i : i + 1]) if part is not None)
            yield block
        yield self.decode


@dataclass(frozen=True)
class Call:
    """How to run one component: a method of a module."""

    owner: nn.Module
    method: str
    arguments: tuple[Any, ...]
    inputs: tuple[Tensor, ...]

    def run(self, *inputs: Tensor) -> Tensor:
        """On its own inputs, or on others of their shape."""
        return getattr(self.owner, self.method)(*self.arguments, *(inputs or self.inputs))


def model_components(model: EarlyExitModel) -> Components:
    """Count every component of a model. Only its shape matters, not its weights."""
    return _count(_shape(model))


def parameters_used(model: EarlyExitModel) -> dict[str, int]:
    """Component's name → parameters that its output depends on; some may be shared with others."""
    with torch.device("meta"):  # shapes without values: nothing is computed
        calls = component_calls(_build(_shape(model)))
        return {name: _parameters_used(call) for name, call in calls.items()}


def _shape(model: EarlyExitModel) -> str:
    """What `_build` needs, hashable."""
    uem = None if model.uem is None else model.uem.config()
    return json.dumps([model.backbone.config(), uem, model.head_kind])


def _build(shape: str) -> EarlyExitModel:
    backbone, uem, heads = json.loads(shape)
    model = EarlyExitModel(build_backbone(backbone))
    return model if uem is None else model.add_exits(uem, heads or "each")


@lru_cache(maxsize=64)
def _count(shape: str) -> Components:
    model = _build(shape)
    found = {name: _component(name, call) for name, call in component_calls(model).items()}
    layers = range(0 if model.uem is None else model.num_blocks)
    return Components(
        embed=found["patch embedding"],
        blocks=[found[f"block {i}"] for i in range(model.num_blocks)],
        uems=[found.get(f"UEM {i}") for i in layers],
        heads=[found[f"head {i}"] for i in layers],
        decode=found["final layers"],
    )


@torch.no_grad()
def component_calls(model: EarlyExitModel, batch: int = 1) -> dict[str, Call]:
    """Name → how to run it on zeros, in the order in which they run; UEM and head i go before block i."""
    net = model.backbone
    device = next(net.parameters()).device
    x = torch.zeros(batch, *model.image_shape, device=device)
    t = torch.zeros(batch, dtype=torch.int64, device=device)
    labels = (torch.zeros_like(t),) if net.num_classes else ()
    states = list(net.states(x, t, *labels))
    calls = {"patch embedding": Call(net, "embed", (), (x, t, *labels))}
    for i in range(model.num_blocks):
        if model.uem is not None and i in model.uem.layers:
            watched = Watched(model.num_blocks, net.dim, net.extras, net.patch_dim)
            alone = build_uem({**model.uem.config(), "layers": [i]}, watched).to(device)  # tensors may hold all layers
            calls[f"UEM {i}"] = Call(alone, "forward", (i,), (states[i], t))
        if model.heads is not None:
            calls[f"head {i}"] = Call(model, "read_out", (i,), (states[i],))
        source = net.skip_source(i)
        skip = () if source is None else (states[source + 1],)
        calls[f"block {i}"] = Call(net, "block", (i,), (states[i], *skip))
    calls["final layers"] = Call(net, "decode", (), (states[-1],))
    return calls


def _parameters_used(call: Call) -> int:
    """Those that the output depends on."""
    parameters = list(call.owner.parameters())
    gradients = torch.autograd.grad(call.run().sum(), parameters, allow_unused=True)
    return sum(p.numel() for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None)


def _component(name: str, call: Call) -> Component:
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    logging.getLogger("torch.jit").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        counter = FlopCountAnalysis(_Traced(call), call.inputs).set_op_handle(**HANDLES)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counts = counter.by_operator()
    apart = ("attention", "layer_norm", "elementwise")
    return Component(
        name,
        macs=int(sum(value for operator, value in counts.items() if operator not in apart)),
        attention_macs=int(counts["attention"]),
        norm_ops=int(counts["layer_norm"]),
        elementwise_ops=int(counts["elementwise"]),
    )


class _Traced(nn.Module):
    """Lets fvcore trace any method of a module."""

    def __init__(self, call: Call):
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
    """One per element of the argument or the result, whichever is larger; arithmetic on shapes is not work."""
    shapes = (get_shape(inputs[0]), get_shape(outputs[0]))
    return Counter({"elementwise": max(math.prod(shape) if shape else 0 for shape in shapes)})


ELEMENTWISE = (
    "add", "add_", "sub", "mul", "mul_", "div", "div_", "exp", "sin", "cos", "clamp", "sum", "mean", "amax",
    "gelu", "silu", "sigmoid", "tanh", "relu",
)  # fmt: skip
HANDLES: dict[str, Handle] = {
    "aten::scaled_dot_product_attention": _attention,
    "aten::baddbmm": _baddbmm,
    **{f"aten::{name}": _elementwise for name in ELEMENTWISE},
}


def model_cost(model: EarlyExitModel) -> Cost:
    """Count every component of a model, for one image and one step."""
    parts = model_components(model)
    return replace(_cost(parts, attention=True), without_attention=_cost(parts, attention=False))


def _cost(parts: Components, attention: bool) -> Cost:
    return Cost(
        embed=parts.embed.gflops(attention),
        blocks=[block.gflops(attention) for block in parts.blocks],
        uems=[0.0 if uem is None else uem.gflops(attention) for uem in parts.uems],
        heads=[head.gflops(attention) for head in parts.heads],
        decode=parts.decode.gflops(attention),
    )
