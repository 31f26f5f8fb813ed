"""Batches: a function of (seed, step) alone, shared out among processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from deediff.datasets import load_images, load_labels
from deediff.diffusion.schedule import Schedule
from trainer import batches
from trainer.presets import PRESETS, TrainConfig


def test_every_batch_covers_all_timesteps_and_is_shared_out(image_folder: Path) -> None:
    config = PRESETS["uvit_tiny"][1]
    data, schedule, size = load_images(str(image_folder), 32, 3), Schedule(), config.backbone.batch_size
    whole = batches.batch_at(config, config.backbone, data, schedule, 5, batches.Processes())
    strata = torch.arange(size) / size * 1000
    assert ((whole[1].sort().values - strata).abs() <= 1000 / size + 1).all()
    halves = [
        batches.batch_at(config, config.backbone, data, schedule, 5, batches.Processes(rank, 2)) for rank in (0, 1)
    ]
    for i in range(3):
        assert torch.equal(whole[i][0::2], halves[0][i])
        assert torch.equal(whole[i][1::2], halves[1][i])


def conditional(dropout: float) -> TrainConfig:
    config = PRESETS["uvit_tiny"][1]
    model = dataclasses.replace(config.model, img_size=16, num_classes=4 if dropout else 3)
    return dataclasses.replace(config, model=model, label_dropout=dropout)


def test_every_image_comes_with_its_class(class_folder: Path) -> None:
    data, labels, procs = load_images(str(class_folder), 16, 3), load_labels(str(class_folder)), batches.Processes()
    config = conditional(0.0)
    batch = batches.batch_at(config, config.backbone, data, Schedule(), 2, procs, labels)
    assert torch.equal(batch.labels * 100, batch.images[:, 0, 0, 0].long())
    assert set(batch.labels.tolist()) == {0, 1, 2}


def test_labels_are_dropped_at_the_given_rate_and_nothing_else_changes(class_folder: Path) -> None:
    data, labels, procs = load_images(str(class_folder), 16, 3), load_labels(str(class_folder)), batches.Processes()
    config, dropped, total = conditional(0.15), 0, 0
    for step in range(12):
        arguments = (config, config.backbone, data, Schedule(), step)
        batch, plain = batches.batch_at(*arguments, procs, labels), batches.batch_at(*arguments, procs)
        assert plain.labels is None
        assert all(torch.equal(a, b) for a, b in zip(batch[:3], plain[:3], strict=True))
        kept = batch.labels != 3
        assert torch.equal(batch.labels[kept] * 100, batch.images[kept, 0, 0, 0].long())
        halves = [batches.batch_at(*arguments, batches.Processes(rank, 2), labels).labels for rank in (0, 1)]
        assert torch.equal(torch.stack(halves, dim=1).flatten(), batch.labels)
        dropped, total = dropped + int((~kept).sum()), total + len(kept)
    assert dropped / total == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / total) ** 0.5)
