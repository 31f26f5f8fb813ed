"""Operations of every component of a model, for one image and one step, and the GFLOPs that follow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from deediff.cost.calls import ComponentCall, component_calls
from deediff.cost.cost import Cost
from deediff.cost.counting import count_operations
from deediff.models import EarlyExitModel, build_backbone


@dataclass(frozen=True)
class Component:
    """One component, for one image and one step."""

    name: str
    macs: int  # of linear maps, convolutions and matrix products, without the attention products
    attention_macs: int  # q kᵀ and its product with v
    norm_ops: int  # norms: 5 operations per element, fvcore's estimate
    elementwise_ops: int  # activations, sums and the like: one operation per element, a softmax 5

    def gflops(self, attention: bool = True) -> float:
        """2 × GMACs, with or without the attention products, without norms and elementwise operations."""
        return 2 * (self.macs + (self.attention_macs if attention else 0)) / 1e9


@dataclass(frozen=True)
class Components:
    """All components of a model."""

    embed: Component
    blocks: list[Component]  # N
    uems: list[Component | None]  # N, None at layers without one; empty without exits
    heads: list[Component]  # N; empty without exits
    decode: Component

    def __iter__(self) -> Iterator[Component]:
        """In the order of execution."""
        yield self.embed
        for i, block in enumerate(self.blocks):
            yield from (part for part in (*self.uems[i : i + 1], *self.heads[i : i + 1]) if part is not None)
            yield block
        yield self.decode


def model_cost(model: EarlyExitModel) -> Cost:
    """GFLOPs of every component of a model, for one image and one step."""
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


def model_components(model: EarlyExitModel) -> Components:
    """Count every component of a model. The counts depend on its shape only, not on its weights."""
    return _count(_shape(model))


def parameters_used(model: EarlyExitModel) -> dict[str, int]:
    """Component name → number of parameters that its output depends on; components may share parameters."""
    with torch.device("meta"):  # shapes only, no computation
        calls = component_calls(_build(_shape(model)))
        return {name: _parameters_used(call) for name, call in calls.items()}


def _shape(model: EarlyExitModel) -> str:
    """The configuration that `_build` reads, hashable."""
    uem = None if model.uem is None else model.uem.config()
    return json.dumps([model.backbone.config(), uem, model.head_kind, model.head])


def _build(shape: str) -> EarlyExitModel:
    backbone, uem, heads, head = json.loads(shape)
    model = EarlyExitModel(build_backbone(backbone))
    return model if uem is None else model.add_exits(uem, heads or "each", head=head or "linear")


@lru_cache(maxsize=64)
def _count(shape: str) -> Components:
    model = _build(shape)
    found = {name: _count_component(name, call) for name, call in component_calls(model).items()}
    layers = range(0 if model.uem is None else model.num_blocks)
    return Components(
        embed=found["patch embedding"],
        blocks=[found[f"block {i}"] for i in range(model.num_blocks)],
        uems=[found.get(f"UEM {i}") for i in layers],
        heads=[found[f"head {i}"] for i in layers],
        decode=found["final layers"],
    )


def _count_component(name: str, call: ComponentCall) -> Component:
    counts = count_operations(call)
    norms = ("layer_norm", "group_norm")
    separate = ("attention", "elementwise", *norms)
    return Component(
        name,
        macs=int(sum(value for operator, value in counts.items() if operator not in separate)),
        attention_macs=int(counts["attention"]),
        norm_ops=int(sum(counts[norm] for norm in norms)),
        elementwise_ops=int(counts["elementwise"]),
    )


def _parameters_used(call: ComponentCall) -> int:
    parameters = list(call.owner.parameters())
    gradients = torch.autograd.grad(call.run().sum(), parameters, allow_unused=True)
    return sum(p.numel() for p, gradient in zip(parameters, gradients, strict=True) if gradient is not None)
