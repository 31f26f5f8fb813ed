"""Tables of the cost of every component and every exit, counted and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from deediff.cost.components import Component, model_components, model_cost, parameters_used
from deediff.models import EarlyExitModel


def component_table(
    model: EarlyExitModel,
    seconds: Mapping[str, float],  # by component name, per image
) -> list[dict[str, Any]]:
    """One row per component in the order of execution, and one for the network without exits."""
    parts, parameters = model_components(model), parameters_used(model)
    rows = [_row(part, parameters[part.name], seconds[part.name]) for part in parts]
    backbone = (parts.embed, *parts.blocks, parts.decode)
    full = Component(
        "full network",
        macs=sum(part.macs for part in backbone),
        attention_macs=sum(part.attention_macs for part in backbone),
        norm_ops=sum(part.norm_ops for part in backbone),
        elementwise_ops=sum(part.elementwise_ops for part in backbone),
    )
    size = sum(p.numel() for p in model.backbone.parameters())
    return [*rows, _row(full, size, sum(seconds[part.name] for part in backbone))]


def _row(part: Component, parameters: int, seconds: float) -> dict[str, Any]:
    plain, every = part.gflops(attention=False), part.gflops()
    return {
        "component": part.name,
        "parameters": parameters,
        "gmacs_without_attention": plain / 2,
        "gmacs": every / 2,
        "gflops_without_attention": plain,
        "gflops": every,
        "norm_mops": part.norm_ops / 1e6,
        "elementwise_mops": part.elementwise_ops / 1e6,
        "ms": 1000 * seconds,
    }


def exit_cost_table(
    model: EarlyExitModel,
    seconds: Mapping[str, float],  # by component name, per image
) -> list[dict[str, Any]]:
    """One row per exit i = 0 … N of the model: i blocks, UEMs 0 … i (all N for i = N), and the output head."""
    cost, n = model_cost(model), model.num_blocks
    assert cost.without_attention is not None
    every, plain = cost.at_exit(with_uem=True), cost.without_attention.at_exit(with_uem=True)
    rows = []
    for i in range(n + 1):
        if math.isnan(every[i]):  # no head
            continue
        names = ["patch embedding", *(f"block {j}" for j in range(i)), *(f"UEM {j}" for j in range(min(i + 1, n)))]
        names.append(f"head {i}" if i < n else "final layers")
        rows.append(
            {
                "exit_layer": i,
                "gmacs_without_attention": plain[i] / 2,
                "gmacs": every[i] / 2,
                "gflops_without_attention": plain[i],
                "gflops": every[i],
                "share_of_full": every[i] / cost.full,
                "ms": 1000 * sum(seconds.get(name, 0.0) for name in names),  # some layers have no UEM
            }
        )
    return [{key: value if isinstance(value, int) else float(value) for key, value in row.items()} for row in rows]
