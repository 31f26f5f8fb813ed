"""Trainings on folders of photos: what is refused before the first step, and what never stops one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from PIL import Image

from deediff.datasets import load_images
from deediff.json_files import read_json
from tests.trainer.toy import CLASSES, train
from trainer import loop
from trainer.config import TrainConfig
from trainer.start import photo_options


def test_bad_files_stop_a_training_before_it_writes_anything(
    class_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x.png", "y.jpg"):
        (class_folder / "a" / name).write_bytes(b"no picture")
    assert train(class_folder, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert "2 of 14 pictures" in error
    assert "a/x.png" in error
    assert "a/y.jpg" in error
    assert not (tmp_path / "run").exists()
    (class_folder / ".hidden").mkdir()
    assert train(class_folder, tmp_path / "run", "--skip-bad", *CLASSES) == 0
    run = read_json(tmp_path / "run" / "run.json")
    assert run["images"] == {"found": 15, "used": 12, "passed_over": {"unreadable": 2, "hidden": 1}}
    assert run["class_names"] == ["a", "b", "c"]
    assert "15 files found, 12 pictures used" in capsys.readouterr().err


def test_a_training_survives_files_that_break_after_it_began(
    class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = loop.Training.run

    def run(self: loop.Training) -> Path:
        for name in ("a/0.png", "b/more/1.png"):
            (class_folder / name).write_bytes(b"")
        return original(self)

    monkeypatch.setattr(loop.Training, "run", run)
    assert train(class_folder, tmp_path / "run") == 0
    assert "another one takes its place" in capsys.readouterr().err


@pytest.mark.parametrize("channels", ["2", "4", "5"])
def test_channels_that_no_reader_gives_are_refused_before_a_run_folder_exists(
    class_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], channels: str
) -> None:
    assert train(class_folder, tmp_path / "run", "--model.in-chans", channels) == 2
    assert f"1 or 3 channels, but the model takes {channels}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
def test_the_background_reaches_the_training(tmp_path: Path, background: Literal["white", "black"], level: int) -> None:
    Image.new("RGBA", (16, 16), (9, 9, 9, 0)).save(tmp_path / "0.png")
    options = photo_options(TrainConfig(str(tmp_path), background=background))
    images = load_images(str(tmp_path), 16, 3, photos=options)
    assert (images[torch.tensor([0])] == level).all()
