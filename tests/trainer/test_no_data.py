"""`--data none`: exits distilled on the network's own trajectories."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import deediff
from deediff.diffusion.schedule import Schedule
from deediff.models import UViTConfig
from tests.conftest import TINY, make_model
from tests.trainer.toy import CLASSES, TOY, train, weights
from trainer import loop
from trainer.batches import Processes
from trainer.config import Method, Stage, TrainConfig
from trainer.run import main
from trainer.trajectories import Points, points_at

DISTIL = ("--data", "none", "--backbone.steps", "0", "--method.target", "full")


def distil(base: Path, out: Path, *more: str) -> int:
    return main([*TOY, *DISTIL, "--init", str(base), "--out", str(out), *more])


ONE = Processes()


def points(step: int = 0, procs: Processes = ONE, num_classes: int = 0, dropout: float = 0.0) -> Points:
    model_config: UViTConfig = replace(TINY, num_classes=num_classes)
    model = make_model(config=model_config)
    model.null_label = num_classes > 0
    config = TrainConfig(
        "none",
        model=model_config,
        exits=Stage(steps=1, batch_size=16),
        method=Method(target="full"),
        label_dropout=dropout,
    )
    return points_at(config, model, Schedule(), step, procs)


@pytest.fixture
def base(image_folder: Path, tmp_path: Path) -> Path:
    assert train(image_folder, tmp_path / "base", "--exits.steps", "0") == 0
    return tmp_path / "base"


class Killed(BaseException):
    """Like kill -9: not to be caught."""


def test_resume_equals_uninterrupted_and_no_image_is_read(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "load_images", None)
    assert distil(base, tmp_path / "whole", "--method.head", "timestep") == 0
    update = loop.Training._update_ema

    def dies(self: loop.Training, stage_step: int) -> None:
        if self.step == 3:
            raise Killed
        update(self, stage_step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_update_ema", dies)
        with pytest.raises(Killed):
            distil(base, tmp_path / "killed", "--method.head", "timestep")
    assert distil(base, tmp_path / "killed", "--method.head", "timestep") == 0
    whole, killed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    fresh = deediff.load(base).add_exits({"name": "mlp"}, head="timestep")
    assert not torch.equal(fresh.state_dict()["heads.1.weight"], whole["heads.1.weight"])  # trained
    metrics = pd.read_parquet(tmp_path / "killed" / "metrics.parquet")
    assert metrics["step"].tolist() == [1, 2, 3, 4]
    assert (metrics["loss_simple"] == 0).all()


def test_the_run_keeps_the_backbone_and_names_the_images_that_trained_it(
    base: Path, image_folder: Path, tmp_path: Path
) -> None:
    assert distil(base, tmp_path / "run") == 0
    before, after = weights(base), weights(tmp_path / "run")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["dataset"], info["config"]["dataset"]) == (str(image_folder), "none")
    checkpoint = json.loads((tmp_path / "run" / "checkpoints" / "4.json").read_text())
    assert (checkpoint["dataset"], checkpoint["images_seen"]) == (str(image_folder), 24)


def test_points_depend_on_the_step_and_every_timestep_occurs() -> None:
    first, again = points(), points()
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.t, again.t)
    assert first.labels is None
    drawn = [points(step).t for step in range(40)]
    assert {len(t) for t in drawn} == {16}
    found = torch.cat(drawn)
    assert (found == 999).any()
    assert (torch.bincount(found * 20 // 1000, minlength=20) > 0).all()
    sizes = {len(t.unique()) for t in drawn}
    assert min(sizes) <= 6 < 11 <= max(sizes)


def test_the_points_are_those_of_a_trajectory_of_the_full_network() -> None:
    """A DPM-Solver++ step from the noise at T−1 to the next timestep leads to points of the same batch."""
    model, schedule = make_model(), Schedule()
    for step in range(3):
        found = points(step)
        start, following = found.x[found.t == 999], sorted(set(found.t.tolist()), reverse=True)[1]
        torch.testing.assert_close(start.std(), torch.tensor(1.0), atol=0.15, rtol=0)
        alpha, after = (float(schedule.alphas_bar[t]) for t in (999, following))
        eps = model(start, torch.full((len(start),), 999))
        x0 = ((start - (1 - alpha) ** 0.5 * eps) / alpha**0.5).clamp(-1, 1)
        eps = (start - alpha**0.5 * x0) / (1 - alpha) ** 0.5
        expected = after**0.5 * x0 + (1 - after) ** 0.5 * eps  # the first step of the solver is a DDIM step
        distance = (expected[:, None] - found.x[found.t == following]).abs().amax(dim=(2, 3, 4))
        assert (distance.amin(dim=1) < 1e-3).sum() >= 1


def test_processes_share_the_points_of_one() -> None:
    whole = points(3)
    parts = [points(3, Processes(rank, 2)) for rank in range(2)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.x, whole.x[rank::2])
        assert torch.equal(part.t, whole.t[rank::2])


def test_classes_are_drawn_and_dropped() -> None:
    labels = torch.cat([points(step, num_classes=4, dropout=0.3).labels for step in range(20)])
    counts = torch.bincount(labels, minlength=4) / len(labels)
    assert len(counts) == 4
    assert 0.1 < float(counts[3]) < 0.5
    assert (counts > 0.05).all()
    assert (torch.cat([points(step, num_classes=4).labels for step in range(5)]) < 3).all()


def test_a_guided_network_stays_one(class_folder: Path, tmp_path: Path) -> None:
    assert train(class_folder, tmp_path / "base", *CLASSES, "--exits.steps", "0") == 0
    assert distil(tmp_path / "base", tmp_path / "run", "--model.num-classes", "4") == 0
    assert deediff.load(tmp_path / "run").null_label


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--backbone.steps", "2"), "no images to train the backbone with: give --backbone.steps 0"),
        (("--strategy", "finetuned"), "no images to train the backbone with: give --backbone.steps 0 and --strategy"),
        (("--method.target", "noise"), "has no drawn noise to predict: give --method.target full"),
        (("--exits.steps", "0"), "trains exits only, and --exits.steps is 0"),
    ],
)
def test_what_needs_images_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, ...], sentence: str
) -> None:
    assert distil(base, tmp_path / "run", *change) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_it_needs_a_trained_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOY, *DISTIL, "--out", str(tmp_path / "run")]) == 2
    assert "trains exits of a trained network: give it with --init" in " ".join(capsys.readouterr().err.split())
