"""The classifier behind fd-cifar and fd-mnist: trained by a preset, exactly resumable."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import trainer.features as features
from deediff.json_files import read_json
from trainer.run import main


@pytest.fixture(autouse=True)
def two_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 images, the bright ones of class 1."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (200,), generator=rng)

    def load_images(name: str, size: int, channels: int, root: Any = None, train: bool = True) -> Tensor:
        noise = torch.randint(0, 64, (200, channels, size, size), generator=torch.Generator().manual_seed(channels))
        return (noise + 150 * labels[:, None, None, None]).to(torch.uint8)

    monkeypatch.setattr(features, "load_images", load_images)
    monkeypatch.setattr(features, "load_labels", lambda *_, **__: labels)


def train(out: Path, *extra: str) -> int:
    options = shlex.split("--dataset mnist --steps 6 --batch-size 16 --save-every 2 --device cpu")
    return main(["features", *options, "--out", str(out), *extra])


def test_it_learns_and_records_how(tmp_path: Path):
    assert train(tmp_path, "--steps", "12", "--lr", "0.05") == 0
    info = read_json(tmp_path / "fd-mnist.json")
    assert info["accuracy"] > 0.9
    assert info["images_seen"] == 12 * 16
    expected = "python -m trainer.run features --dataset mnist --steps 12 --batch-size 16 --lr 0.05"
    assert info["command"] == expected
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["fd-mnist.json", "fd-mnist.safetensors"]


def test_resuming_equals_not_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert train(tmp_path / "whole") == 0
    batch = features._batch

    def killed(config: Any, images: Any, step: int) -> Any:
        if step == 5:
            raise KeyboardInterrupt
        return batch(config, images, step)

    with monkeypatch.context() as patch:
        patch.setattr(features, "_batch", killed)
        assert train(tmp_path / "stopped") == 130
    assert not (tmp_path / "stopped" / "fd-mnist.safetensors").exists()
    assert train(tmp_path / "stopped") == 0
    whole, resumed = (load_file(tmp_path / name / "fd-mnist.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_other_settings_do_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert train(tmp_path) == 0
    before = (tmp_path / "fd-mnist.safetensors").read_bytes()
    assert train(tmp_path, "--seed", "1") == 2
    assert "other settings" in capsys.readouterr().err
    assert train(tmp_path) == 0
    assert "already trained" in capsys.readouterr().out
    assert (tmp_path / "fd-mnist.safetensors").read_bytes() == before


def test_digits_are_not_mirrored_and_pictures_are():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[..., 0] = 255  # a line at the left edge

    def sides(dataset: Any) -> set[int]:
        config = features.FeaturesConfig(dataset=dataset, batch_size=1, shift=0)
        found = (features._batch(config, image, step)[1] for step in range(40))
        return {int(x[0, 0, 0].argmax()) for x in found}

    assert sides("cifar10") == {0, 31}
    assert sides("mnist") == {0}
