"""Heads of several exits in one call: the predictions of each head by itself, and only of heads that nobody changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from deediff.models import EarlyExitModel, UViT, UViTConfig
from deediff.models.cpu.heads import prepared_read_out
from tests.conftest import TINY, make_model

VARIANTS = [TINY, replace(TINY, qkv_bias=True, conv=False), replace(TINY, num_classes=3)]


def assert_equals_the_heads(model: EarlyExitModel) -> None:
    net = model.backbone
    exits = [
        (layer, torch.randn(n, net.state_size // net.dim, net.dim)) for layer, n in ((0, 2), (3, 1), (3, 2), (13, 1))
    ]
    t = torch.full((6,), 300)
    expected = torch.cat([model.read_out(layer, state, t[: len(state)]) for layer, state in exits])
    torch.testing.assert_close(prepared_read_out(model)(exits, t), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", VARIANTS)
@torch.inference_mode()
def test_several_exits_equal_each_by_itself(config: UViTConfig) -> None:
    assert_equals_the_heads(make_model(config=config))


@pytest.mark.parametrize(("heads", "head"), [("shared", "linear"), ("decoder", "linear"), ("each", "timestep")])
@torch.inference_mode()
def test_other_heads_equal_each_by_itself(heads: str, head: str) -> None:
    torch.manual_seed(0)
    assert_equals_the_heads(EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp"}, heads, head=head).eval())


@torch.inference_mode()
def test_a_replaced_head_is_used_and_a_hook_called() -> None:
    model = make_model()
    assert model.heads is not None
    model.heads[3] = torch.nn.Sequential(model.heads[3], torch.nn.Tanh())
    assert_equals_the_heads(model)
    calls: list[int] = []
    model = make_model()
    model.backbone.norm.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[operator, union-attr]
    assert_equals_the_heads(model)
    assert len(calls) == 2  # of the decoder, by itself and prepared
