"""Kinds of output heads: one class and one registry line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deediff.checkpoints import load_checkpoint, save_checkpoint
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.models import Backbone, EarlyExitModel, UViT
from deediff.models.heads import HEADS, OutputHeads
from deediff.sampling import sample
from tests.conftest import TINY


class Adapter(OutputHeads):
    """A linear map per exit, then the backbone's last layers."""

    kind = "adapter"

    @classmethod
    def build(cls, net: Backbone, make_head: Callable[[int], nn.Module]) -> Adapter:
        return cls(nn.Linear(net.dim, net.dim) for _ in range(net.num_blocks))

    def predict(self, layer: int, state: Tensor, t: Tensor, net: Backbone) -> Tensor:
        adapter = self[layer]
        return net.decode(adapter(state))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    HEADS[Adapter.kind] = Adapter
    yield
    del HEADS[Adapter.kind]


def test_a_new_kind_of_heads_is_saved_counted_and_sampled(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp"}, heads="adapter").eval()
    again, meta = load_checkpoint(save_checkpoint(tmp_path / "1.safetensors", model, Schedule(), 1, 1))
    assert (again.head_kind, meta["heads"]) == ("adapter", "adapter")
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 900])
    torch.testing.assert_close(model.all_exits(x, t), again.all_exits(x, t))
    cost = model_cost(model)
    assert cost.heads == pytest.approx([2 * 17 * 32 * 32 / 1e9 + cost.decode] * 13)
    assert all((step.exit_layer == 3).all() for step in sample(again, num_samples=2, steps=2, policy="fixed:3"))


def test_unknown_heads_are_refused_and_nothing_is_attached() -> None:
    model = EarlyExitModel(UViT(TINY))
    with pytest.raises(ValueError, match="the heads are 'each one', expected one of: each, shared, decoder"):
        model.add_exits({"name": "mlp"}, heads="each one")
    assert (model.uem, model.heads) == (None, None)


def test_heads_may_be_one_for_all_or_the_networks_own_last_layers() -> None:
    torch.manual_seed(3)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([10, 900])
    for kind in ("shared", "decoder"):
        model = EarlyExitModel(UViT(TINY)).add_exits({"name": "mlp"}, kind)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        assert model.head_kind == kind
        head = model.backbone.decode if kind == "decoder" else model.heads[0]
        eps, _ = model.all_exits(x, t)
        for i, state in zip(range(13), model.backbone.states(x, t), strict=False):
            torch.testing.assert_close(eps[i], head(state))
