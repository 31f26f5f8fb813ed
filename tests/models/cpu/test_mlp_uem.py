"""The prepared UEMs of a CPU return the values of the model's UEMs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from deediff.models import EarlyExitModel, UViT
from deediff.models.cpu.mlp_uem import prepared_uem
from tests.conftest import TINY


@pytest.mark.parametrize(
    "config",
    [
        {"name": "mlp"},
        {"name": "mlp", "layers": [2, 9]},
        {"name": "mlp", "detach": True},
        {"name": "mlp", "tokens": "image"},
        {"name": "mlp", "aggregation": "max"},
        {"name": "mlp", "aggregation": "sum"},
        {"name": "mlp", "map": True},
        {"name": "mlp", "timestep_embedding": True},
        {"name": "mlp", "scope": "timestep"},
        {"name": "attention", "num_heads": 2},
    ],
    ids=str,
)
def test_a_prepared_uem_equals_the_models(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = EarlyExitModel(UViT(TINY)).add_exits(config).eval().requires_grad_(False)
    assert model.uem is not None
    state, t = torch.randn(5, 17, TINY.embed_dim) * 3, torch.tensor([0, 10, 500, 998, 999])
    for layer in model.uem.layers:
        u = prepared_uem(model, layer)(state, t)
        torch.testing.assert_close(u, model.uncertainty(layer, state, t), atol=1e-6, rtol=1e-6)


def test_a_hook_of_the_uem_is_called() -> None:
    model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp"}).eval().requires_grad_(False)
    assert model.uem is not None
    calls: list[int] = []
    model.uem.register_forward_hook(lambda *_: calls.append(1))
    prepared_uem(model, 3)(torch.randn(2, 17, TINY.embed_dim), torch.tensor([3, 4]))
    assert calls == [1]
