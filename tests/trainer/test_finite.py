"""A loss, gradient or weight that is not finite: nothing of it is saved, and the same command resumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from deediff.errors import UserError
from deediff.json_files import read_json
from tests.trainer.toy import train, weights
from trainer import loop
from trainer.finite import FiniteGuard
from trainer.resuming import check_settings


def break_at(monkeypatch: pytest.MonkeyPatch, step: int, how: Callable[[Tensor], Tensor]) -> None:
    """Change the loss of one step."""
    original: Callable[..., dict[str, Tensor]] = loop.Training._losses

    def losses(self: loop.Training, *arguments: Any) -> dict[str, Tensor]:
        terms = original(self, *arguments)
        return {**terms, "total": how(terms["total"])} if self.step == step else terms

    monkeypatch.setattr(loop.Training, "_losses", losses)


def endless_gradient(loss: Tensor) -> Tensor:
    """The same finite value, with an infinite slope."""
    return loss + (loss - loss.detach()).clamp(min=0).sqrt()


@pytest.mark.parametrize("step", [3, 5, 8])  # within the backbone's stage, at its end, in that of the exits
@pytest.mark.parametrize("how", [lambda loss: loss * math.nan, lambda loss: loss / 0, endless_gradient])
def test_a_training_that_diverges_keeps_its_last_finite_checkpoint_and_resumes(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: Callable[[Tensor], Tensor], step: int
) -> None:
    assert train(image_folder, tmp_path / "whole") == 0
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, step, how)
        assert train(image_folder, tmp_path / "run") == 2
    assert f"not finite at step {step + 1}" in capsys.readouterr().err
    kept = max(int(path.stem) for path in (tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    assert kept == step // 2 * 2
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())
    assert pd.read_parquet(tmp_path / "run" / "metrics.parquet")["loss_total"].map(math.isfinite).all()
    assert train(image_folder, tmp_path / "run") == 0
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_weights_that_overflow_the_checkpoint_are_not_saved() -> None:
    guard = FiniteGuard(torch.device("cpu"))
    guard.watch(torch.tensor(1.0), torch.tensor(2.0))
    guard.check(1, [torch.tensor([7e4])])
    for weight, dtype in ((7e4, torch.float16), (math.nan, torch.float32), (math.inf, torch.float32)):
        with pytest.raises(UserError, match=r"weights are not finite in float.* at step 1; they were not saved"):
            guard.check(1, [torch.tensor([0.0, weight])], dtype)


def interrupted(images: Path, out: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        break_at(patch, 3, lambda loss: loss * math.nan)
        assert train(images, out) == 2


def test_safe_changes_are_accepted_at_a_resume_with_a_note(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(image_folder, tmp_path / "run")
    more = ("--backbone.lr", "1e-5", "--backbone.weight-decay", "0.5", "--backbone.steps", "8", "--ema", "0.5")
    assert train(image_folder, tmp_path / "run", *more) == 0
    note = capsys.readouterr().err
    assert "resumes at step 2 with other settings" in note
    assert "backbone.lr 0.004 → 1e-05" in note
    run = read_json(tmp_path / "run" / "run.json")
    assert run["config"]["backbone"]["lr"] == 1e-5
    assert {"step": 2, "setting": "backbone.steps", "from": 6, "to": 8} in run["changes"]
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert metrics["step"].tolist() == list(range(1, 13))
    assert metrics[metrics["step"].between(3, 8)]["learning_rate"].max() <= 1e-5


def test_a_changed_weight_decay_reaches_the_optimiser(image_folder: Path, tmp_path: Path) -> None:
    for name in ("same", "changed"):
        interrupted(image_folder, tmp_path / name)
    assert train(image_folder, tmp_path / "same") == 0
    assert train(image_folder, tmp_path / "changed", "--backbone.weight-decay", "100") == 0
    same, changed = weights(tmp_path / "same"), weights(tmp_path / "changed")
    assert not torch.equal(same["backbone.pos_embed"], changed["backbone.pos_embed"])


@pytest.mark.parametrize(
    ("more", "name"),
    [
        (("--seed", "1"), "seed"),
        (("--backbone.batch-size", "2"), "backbone.batch_size"),
        (("--backbone.steps", "2"), "backbone.steps"),
        (("--background", "black"), "background"),
        (("--model.depth", "2"), "model.depth"),
    ],
)
def test_other_changes_are_refused(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], name: str
) -> None:
    interrupted(image_folder, tmp_path / "run")
    assert train(image_folder, tmp_path / "run", *more) == 2
    assert f"was trained with other settings ({name})" in capsys.readouterr().err


def test_a_finished_run_takes_no_changes(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "run") == 0
    assert train(image_folder, tmp_path / "run", "--backbone.lr", "1e-5") == 2
    assert check_settings(tmp_path / "none", loop.TrainConfig("mnist")) == []
