"""The second stage: strategies, methods, and the gradients of the losses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pandas as pd
import pytest
import torch

import deediff
from deediff.checkpoints import find_checkpoint
from deediff.models import EarlyExitModel, UViT
from deediff.models.heads import HEADS
from deediff.models.objectives import ExitsObjective
from tests.conftest import TINY
from tests.trainer.toy import train, weights
from trainer.presets import METHODS, PRESETS, Method


def test_a_frozen_backbone_needs_no_gradients_and_others_do(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "base", "--exits.steps", "0") == 0
    base = weights(tmp_path / "base")
    moved = {}
    for strategy in ("frozen", "finetuned"):
        run, more = tmp_path / strategy, ("--init", str(tmp_path / "base"), "--backbone.steps", "0", "--ema", "0")
        assert train(image_folder, run, *more, "--strategy", strategy) == 0
        moved[strategy] = [k for k, v in weights(run).items() if k in base and not torch.equal(v, base[k])]
        seen = json.loads((run / "run.json").read_text())["images_seen"]
        assert seen == 24 + (16 if strategy == "finetuned" else 0)
    assert moved["frozen"] == []
    assert len(moved["finetuned"]) > 40


def test_scratch_trains_everything_at_once(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "run", "--strategy", "scratch") == 0
    assert pd.read_parquet(tmp_path / "run" / "metrics.parquet")["stage"].tolist() == ["exits"] * 4
    assert json.loads((tmp_path / "run" / "run.json").read_text())["images_seen"] == 16


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_reach_the_trained_weights_alone(frozen: bool) -> None:
    """A frozen backbone gets no gradient; with the errors of the blog's code the target adds one to the backbone."""
    torch.manual_seed(0)
    x, t, noise = torch.randn(3, 3, 16, 16), torch.tensor([3, 400, 999]), torch.randn(3, 3, 16, 16)

    def backbone_gradient(method: Method) -> float | None:
        model = EarlyExitModel(UViT(TINY)).add_exits(method.uem_config(), method.heads)
        objective = ExitsObjective(model, frozen, method.losses())
        terms = objective(x, t, noise)
        (terms["total"] - terms["simple"]).backward()
        assert all(p.grad is not None for p in model.uem.parameters())
        assert model.backbone.norm.weight.requires_grad is not frozen
        grad = model.backbone.in_blocks[0].mlp.fc1.weight.grad
        return None if grad is None else float(grad.abs().sum())

    only_u = {"beta_ual": 0.0, "layer_weight": 0.0}
    if frozen:
        assert backbone_gradient(Method()) is None
        return
    assert backbone_gradient(Method(**only_u)) > 0
    assert backbone_gradient(Method(detach=True, **only_u)) == 0
    assert backbone_gradient(Method(detach=True, detach_target=False, **only_u)) > 0
    assert backbone_gradient(Method(detach=True)) > 0  # Eq. 8 trains the backbone through the heads


@pytest.mark.parametrize("strategy", ["frozen", "finetuned", "scratch"])
@pytest.mark.parametrize("name", list(METHODS))
def test_each_method_trains_and_samples(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, strategy: str
) -> None:
    description, config = PRESETS["uvit_tiny"]
    monkeypatch.setitem(PRESETS, "uvit_tiny", (description, dataclasses.replace(config, method=METHODS[name])))
    more = ("--strategy", strategy, "--backbone.steps", "2", "--exits.steps", "20", "--exits.warmup", "2")
    assert train(image_folder, tmp_path / "run", *more, "--model.depth", "12") == 0  # AdaDiff's layers are of 13
    loss = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert loss[["loss_uncertainty", "loss_ual", "loss_layer"]].tail(20).notna().all(axis=None)
    model = deediff.load(tmp_path / "run")
    steps = list(deediff.sample(model, num_samples=2, policy="threshold:1", steps=2))
    assert all((s.exit_layer == min(model.uem.layers)).all() for s in steps)


def test_every_trained_weight_gets_a_gradient() -> None:
    """With two UEMs only two heads are trained: DistributedDataParallel waits for parameters without gradients."""
    torch.manual_seed(0)
    for heads in HEADS:
        model = EarlyExitModel(UViT(TINY)).add_exits(Method(layers=(3, 9)).uem_config(), heads)
        objective = ExitsObjective(model, frozen=False)
        objective(torch.randn(2, 3, 16, 16), torch.tensor([3, 999]), torch.randn(2, 3, 16, 16))["total"].backward()
        assert all((p.grad is not None) == p.requires_grad for p in objective.parameters())
        trained = [all(p.requires_grad for p in head.parameters()) for head in model.heads]
        assert trained == {"each": [i in (3, 9) for i in range(13)], "shared": [True], "decoder": []}[heads]


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_other_predictions_are_trained_for(image_folder: Path, tmp_path: Path, kind: str) -> None:
    assert train(image_folder, tmp_path / "run", "--prediction", kind) == 2  # the identity start predicts ε
    assert train(image_folder, tmp_path / "run", "--prediction", kind, "--start", "official") == 0
    assert deediff.load(tmp_path / "run").prediction == kind


def test_exits_stored_alone_are_those_stored_with_the_backbone(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    assert train(image_folder, base, "--exits.steps", "0") == 0
    options = ["--init", str(base), "--backbone.steps", "0"]
    assert train(image_folder, tmp_path / "whole", *options) == 0
    assert train(image_folder, tmp_path / "alone", *options, "--exits-only") == 0
    whole, alone = weights(tmp_path / "whole"), weights(tmp_path / "alone")
    assert whole.keys() == alone.keys()
    assert all(torch.equal(whole[name], alone[name]) for name in whole)
    sizes = [find_checkpoint(tmp_path / name).stat().st_size for name in ("whole", "alone")]
    assert sizes[1] < sizes[0] / 2
    assert train(image_folder, tmp_path / "bad", "--exits-only") == 2
    assert "--exits-only needs a backbone that stays as it is" in capsys.readouterr().err
