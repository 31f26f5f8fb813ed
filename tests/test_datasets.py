"""Data sets: images and labels, and messages for those that are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from deediff.datasets import load_images, load_labels
from deediff.errors import UserError
from tests.conftest import REPO


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no images below"):
        load_images(str(tmp_path), 32, 3)


def test_a_missing_data_set(tmp_path: Path) -> None:
    message = r"mnist was not found in .* or point --data-root, or the environment's DEEDIFF_DATA"
    with pytest.raises(UserError, match=message):
        load_images("mnist", 32, 1, root=tmp_path, download=False)


@pytest.mark.parametrize(("name", "channels"), [("mnist", 1), ("cifar10", 3)])
def test_real_data_sets_load(shared: Path, name: str, channels: int) -> None:
    data = load_images(name, 32, channels, root=shared / "data", train=False, download=False)
    batch = data[torch.tensor([0, 9999])]
    assert batch.shape == (2, channels, 32, 32)
    assert batch.dtype == torch.uint8
    if name == "mnist":
        assert not batch[..., :2, :].any()  # padded, not resized
        assert batch.max() > 200


def test_torchvision_operators_are_declared_only_when_missing() -> None:
    """After the repair both libraries import, and no operator is declared again."""
    code = "from deediff import _torchvision as fix; import torchvision, torch_fidelity; "
    code += "assert not fix.declare_missing_operators()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)


def test_an_image_without_a_class_is_named(class_folder: Path) -> None:
    Image.new("RGB", (16, 16)).save(class_folder / "loose.png")
    with pytest.raises(UserError, match=r"loose\.png has no class: expected every image in a sub-folder"):
        load_labels(str(class_folder))


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_classes_of_real_data_sets(shared: Path, name: str) -> None:
    labels = load_labels(name, shared / "data", train=False)
    assert torch.bincount(labels).shape == (10,)
    assert len(labels) == 10_000
