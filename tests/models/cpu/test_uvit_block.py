"""The fused call of a block: the same result as the module, and only where nothing of the module was changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from deediff.models import UViTConfig
from deediff.models.cpu.uvit_block import prepared_block
from tests.conftest import TINY, make_model

VARIANTS = [TINY, replace(TINY, qkv_bias=True, conv=False), replace(TINY, num_classes=3)]


@pytest.mark.parametrize("config", VARIANTS)
@torch.inference_mode()
def test_prepared_blocks_equal_the_modules(config: UViTConfig) -> None:
    net = make_model(config=config).backbone
    state, skip = torch.randn(2, 5, net.state_size // net.dim, net.dim)
    for i in range(net.num_blocks):
        joined = None if net.skip_source(i) is None else skip
        torch.testing.assert_close(
            prepared_block(net, i)(state, joined), net.block(i, state, joined), rtol=1e-4, atol=1e-5
        )


class Doubled(torch.nn.Linear):
    """A layer that replaces another one in a trained network."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@torch.inference_mode()
def test_replaced_modules_and_hooks_are_really_called() -> None:
    state = torch.randn(2, 17, 32)
    net: Any = make_model().backbone
    before = prepared_block(net, 2)(state)
    old = net.in_blocks[2].mlp.fc1
    net.in_blocks[2].mlp.fc1 = Doubled(32, 128)
    net.in_blocks[2].mlp.fc1.load_state_dict(old.state_dict())
    torch.testing.assert_close(prepared_block(net, 2)(state), net.block(2, state))
    assert not torch.allclose(prepared_block(net, 2)(state), before, atol=1e-3)
    seen: list[torch.nn.Module] = []
    net.in_blocks[1].norm1.register_forward_hook(lambda module, *_: seen.append(module))
    prepared_block(net, 1)(state)
    assert seen == [net.in_blocks[1].norm1]
