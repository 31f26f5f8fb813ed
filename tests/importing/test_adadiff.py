"""Checkpoints of the AdaDiff repository."""

from __future__ import annotations

from pathlib import Path

import torch

import deediff
from deediff.importing.checkpoint import import_checkpoint
from deediff.models import UViT
from tests.conftest import TINY


def adadiff_state(net: UViT) -> dict[str, torch.Tensor]:
    """Names and shapes as in AdaDiff's checkpoints: one probe per block, (patch² × channels, width)."""
    state = dict(net.state_dict())
    for i in range(net.num_blocks):
        state[f"lte_classifer.{i}.lte.weight"] = torch.randn(48, 32) * 0.3
        state[f"lte_classifer.{i}.lte.bias"] = torch.randn(48) * 0.3
    return state


def test_the_confidence_after_block_i_is_the_uncertainty_of_exit_i_plus_1(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UViT(TINY).eval()
    state = adadiff_state(net)
    torch.save(state, tmp_path / "adadiff.pth")
    run = import_checkpoint(tmp_path / "adadiff.pth", tmp_path / "run", "adadiff", num_heads=2)
    model = deediff.load(run)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 700])
    with torch.no_grad():
        eps, u = model.all_exits(x, t)
        states = list(net.states(x, t))
        for block in range(12):
            weight, bias = (state[f"lte_classifer.{block}.lte.{part}"] for part in ("weight", "bias"))
            confidence = (states[block + 1][:, 1:] @ weight.T + bias).sigmoid().mean((1, 2))
            torch.testing.assert_close(u[block + 1], 1 - confidence)
            torch.testing.assert_close(eps[block + 1], net.decode(states[block + 1]))
    assert u[0].isnan().all()
    steps = list(deediff.sample(model, num_samples=2, policy="threshold:0.5", steps=2))
    assert all((s.exit_layer >= 1).all() for s in steps)
