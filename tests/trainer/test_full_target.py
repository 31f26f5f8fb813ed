"""`--method.target full`: exits learn the prediction of the full, frozen network."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import deediff
from deediff.diffusion.losses import LossOptions
from deediff.models import EarlyExitModel, UViT
from deediff.models.objectives import ExitsObjective
from tests.conftest import TINY
from tests.trainer.toy import train, weights

SMALL = replace(TINY, depth=4)
EVERY_TERM = LossOptions(layer_weight=1.0)


def idle_from(first: int) -> EarlyExitModel:
    """Blocks from `first` on pass their input on, so that the decoder's exits there equal the full network."""
    torch.manual_seed(0)
    model = EarlyExitModel(UViT(SMALL)).add_exits({"name": "mlp"}, "decoder")
    model.exit_target = "full"
    with torch.no_grad():
        for p in model.backbone.parameters():
            p.add_(torch.randn_like(p) * 0.1)
        for block in model.backbone.blocks[first:]:
            for last in (block.attn.proj, block.mlp.fc2):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            if block.skip_linear is not None:
                block.skip_linear.weight.copy_(torch.cat([torch.eye(32), torch.zeros(32, 32)], dim=1))
                nn.init.zeros_(block.skip_linear.bias)
    return model


def batch(size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, size, 3, 16, 16, generator=generator)
    return x, torch.randint(1000, (size,), generator=generator), noise


def test_exits_that_equal_the_full_network_have_no_loss() -> None:
    x, t, noise = batch(4, 0)
    terms = ExitsObjective(idle_from(0), frozen=True, options=EVERY_TERM)(x, t, noise)
    assert [float(terms[name]) for name in ("simple", "ual", "layer")] == pytest.approx([0, 0, 0], abs=1e-9)
    model = idle_from(0)
    model.exit_target = "noise"
    terms = ExitsObjective(model, frozen=True, options=EVERY_TERM)(x, t, noise)
    assert min(float(terms[name].detach()) for name in ("simple", "ual", "layer")) > 0.1


def test_the_drawn_noise_does_not_matter() -> None:
    x, t, noise = batch(4, 0)
    objective = ExitsObjective(idle_from(3), frozen=True, options=EVERY_TERM)
    assert len({float(objective(x, t, target)["total"].detach()) for target in (noise, 2 * noise, None)}) == 1


@pytest.mark.parametrize("target", ["full", "noise"])
def test_u_goes_to_zero_with_depth_if_nothing_is_lost_there(target: str) -> None:
    """With the drawn noise as target it does not: the full network's own error remains."""
    model = idle_from(3)
    model.exit_target = target
    objective = ExitsObjective(model, frozen=True)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        objective(*batch(8, step))["total"].backward()
        optimizer.step()
    x, t, _ = batch(64, 1000)
    u = model.all_exits(x, t)[1].mean(dim=1).detach()
    assert float(u[:3].min()) > 0.1
    assert (float(u[3:].max()) < 0.05) == (target == "full")


def test_it_is_trained_stored_and_calibrated_against(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "run", "--method.target", "full") == 0
    model = deediff.load(tmp_path / "run")
    assert model.exit_target == "full"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["config"]["method"]["target"] == "full"
    assert train(image_folder, tmp_path / "other") == 0
    same = weights(tmp_path / "other")
    different = {name.split(".")[0] for name, value in weights(tmp_path / "run").items() if (value != same[name]).any()}
    assert different == {"uem", "heads"}


@pytest.mark.parametrize("strategy", ["finetuned", "scratch"])
def test_a_backbone_that_is_trained_is_no_target(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: str
) -> None:
    more = ("--method.target", "full", "--strategy", strategy)
    assert train(image_folder, tmp_path / "run", *more) == 2
    assert f"needs a backbone that stays as it is, not --strategy {strategy}" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="with a frozen backbone only"):
        ExitsObjective(idle_from(0), frozen=False)
