"""The training loop: two stages, exact resume, equal results of one process and several."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

import deediff
from tests.conftest import REPO
from tests.trainer.toy import CLASSES, TOY, train, weights
from trainer import loop
from trainer.run import main


def test_two_stages_and_their_files(image_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train(image_folder, run, "--sample-every", "5") == 0
    info = json.loads((run / "run.json").read_text())
    assert info["status"] == "done"
    assert info["images_seen"] == 24
    assert info["config"]["model"]["embed_dim"] == 64
    assert {p.stem for p in (run / "checkpoints").glob("*.safetensors")} == {"6", "10"}
    metrics = pd.read_parquet(run / "metrics.parquet")
    assert metrics["step"].tolist() == list(range(1, 11))
    assert metrics["stage"].tolist() == ["backbone"] * 6 + ["exits"] * 4
    assert metrics["loss_simple"].notna().all()
    assert metrics["loss_uncertainty"].notna().sum() == 4
    assert (run / "samples" / "5.png").exists()
    assert list((run / "tensorboard").iterdir())
    assert not (run / "resume.pt").exists()
    before, after = deediff.load(run / "checkpoints" / "6.safetensors"), deediff.load(run)
    for name, value in before.backbone.state_dict().items():
        assert torch.equal(value, after.backbone.state_dict()[name])  # frozen
    fresh = before.backbone.make_head().state_dict()  # initial weights of every head
    assert not torch.equal(fresh["decoder_pred.weight"], after.heads[0].decoder_pred.weight)


def test_bfloat16_trains_nearly_the_same(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "fine", "--precision", "float32") == 0
    assert train(image_folder, tmp_path / "coarse", "--precision", "bfloat16") == 0
    fine, coarse = (pd.read_parquet(tmp_path / run / "metrics.parquet")["loss_total"] for run in ("fine", "coarse"))
    assert not (fine == coarse).all()
    assert coarse.to_list() == pytest.approx(fine.to_list(), rel=0.05)


class Killed(BaseException):
    """Like kill -9: not to be caught."""


@pytest.mark.parametrize(("kill_at", "classes"), [(3, False), (6, False), (7, False), (9, False), (9, True)])
def test_resume_equals_uninterrupted(
    image_folder: Path, class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int, classes: bool
) -> None:
    images, more = (class_folder, CLASSES) if classes else (image_folder, ())
    assert train(images, tmp_path / "whole", *more) == 0
    update = loop.Training._update_ema

    def dies(self: loop.Training, stage_step: int) -> None:
        if self.step == kill_at:
            raise Killed
        update(self, stage_step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_update_ema", dies)
        with pytest.raises(Killed):
            train(images, tmp_path / "killed", *more)
    assert train(images, tmp_path / "killed", *more) == 0
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    steps = pd.read_parquet(tmp_path / "killed" / "metrics.parquet")["step"].tolist()
    assert steps == list(range(1, 11))


def test_init_starts_from_another_run_and_carries_its_images(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "first") == 0
    more = ("--init", str(tmp_path / "first"), "--backbone.steps", "0")
    assert train(image_folder, tmp_path / "second", *more) == 0
    assert json.loads((tmp_path / "second" / "run.json").read_text())["images_seen"] == 24
    first, second = deediff.load(tmp_path / "first"), deediff.load(tmp_path / "second")
    for name, value in first.backbone.state_dict().items():
        assert torch.equal(value, second.backbone.state_dict()[name])


def test_training_lowers_the_loss(image_folder: Path, tmp_path: Path) -> None:
    more = ("--backbone.steps", "60", "--exits.steps", "0", "--backbone.batch-size", "16", "--backbone.warmup", "5")
    assert train(image_folder, tmp_path / "run", *more, "--sample-every", "0") == 0
    loss = pd.read_parquet(tmp_path / "run" / "metrics.parquet")["loss_simple"]
    assert loss.tail(10).mean() < 0.7 * loss.head(10).mean()


def test_other_settings_do_not_overwrite_a_run(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(image_folder, tmp_path / "run") == 0
    before = weights(tmp_path / "run")
    assert train(image_folder, tmp_path / "run", "--seed", "1") == 2
    assert "was trained with other settings (seed)" in capsys.readouterr().err
    assert all(torch.equal(before[k], v) for k, v in weights(tmp_path / "run").items())


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_a_damaged_resume_file_is_a_sentence(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "resume.pt").write_bytes(content)
    assert train(image_folder, tmp_path / "run") == 2
    assert "resume.pt is not a file of plain tensors" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_like_one(image_folder: Path, tmp_path: Path) -> None:
    assert train(image_folder, tmp_path / "one") == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "trainer.run", *TOY]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = ["--dataset", str(image_folder), "--out", str(tmp_path / "two")]
    subprocess.run([*command, *arguments], check=True, cwd=REPO, env=environment, timeout=300)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], atol=2e-3, rtol=1e-2, msg=name)


@pytest.mark.slow
def test_a_preset_learns_real_digits(shared: Path, tmp_path: Path) -> None:
    args = ["mnist_tiny", "--data-root", str(shared / "data"), "--out", str(tmp_path / "run"), "--sample-every", "0"]
    assert main([*args, "--backbone.steps", "60", "--exits.steps", "40", "--device", "cpu"]) == 0
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert metrics[metrics["stage"] == "backbone"]["loss_simple"].iloc[-1] < 0.2  # the loss of ε ≈ x_t is higher
    exits = metrics[metrics["stage"] == "exits"]
    assert exits["loss_total"].notna().all()
