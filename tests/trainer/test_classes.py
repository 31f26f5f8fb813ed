"""Class-conditional training: labels, and the null label of guidance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import deediff
from deediff.models import UViT
from tests.trainer.toy import CLASSES, STILL, train


def test_the_null_label_is_not_sampled_without_guidance(class_folder: Path, tmp_path: Path) -> None:
    """With label dropout the last label is the null label of guidance, sampled only when given by number."""
    more = ("--model.num-classes", "4", "--label-dropout", "0.15", "--sample-every", "0", *STILL)
    assert train(class_folder, tmp_path / "run", *more) == 0
    model = deediff.load(tmp_path / "run")

    def images(classes: list[int] | None) -> torch.Tensor:
        *_, last = deediff.sample(model, num_samples=8, steps=2, classes=classes)
        return last.x

    assert torch.equal(images(None), images([0, 1, 2]))
    assert not torch.equal(images(None), images([0, 1, 2, 3]))


@pytest.mark.parametrize("strategy", ["frozen", "scratch"])
def test_labels_reach_the_network(class_folder: Path, tmp_path: Path, strategy: str) -> None:
    """Both stages train the embedding of each class."""
    more = ("--model.num-classes", "3", "--strategy", strategy, "--sample-every", "4", *STILL)
    assert train(class_folder, tmp_path / "run", *more) == 0
    assert (tmp_path / "run" / "samples" / "4.png").exists()
    model = deediff.load(tmp_path / "run")
    torch.manual_seed(0)
    fresh = UViT(model.backbone.cfg).label_emb.weight  # the same seed: drawn before the differing parts
    assert (model.backbone.label_emb.weight != fresh).any(dim=1).all()
    steps = list(deediff.sample(model, num_samples=3, policy="threshold:1", steps=2))
    assert steps[-1].x.shape == (3, 3, 16, 16)


def test_the_null_label_is_trained(class_folder: Path, tmp_path: Path) -> None:
    assert train(class_folder, tmp_path / "run", *CLASSES, *STILL) == 0
    torch.manual_seed(0)
    model = deediff.load(tmp_path / "run")
    assert (model.backbone.label_emb.weight[3] != UViT(model.backbone.cfg).label_emb.weight[3]).any()
    assert len(list(deediff.sample(model, num_samples=2, policy="threshold:1", steps=2, guidance=2.0))) == 2
