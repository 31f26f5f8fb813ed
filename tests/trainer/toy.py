"""A small training: six steps of the backbone, four of the exits."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from deediff.checkpoints import load_checkpoint
from trainer.run import main

TOY = shlex.split(
    "uvit_tiny --model.img-size 16 --model.embed-dim 64 --model.num-heads 2 --model.depth 4 --device cpu "
    "--backbone.steps 6 --exits.steps 4 --backbone.batch-size 4 --exits.batch-size 4 "
    "--save-every 2 --log-every 1 --sample-every 0"
)
STILL = shlex.split("--ema 0 --backbone.weight-decay 0 --exits.weight-decay 0")  # weights change by gradients only
CLASSES = shlex.split("--model.num-classes 4 --label-dropout 0.3")  # the three of `class_folder`, and the null label


def train(images: Path, out: Path, *more: str) -> int:
    return main([*TOY, "--dataset", str(images), "--out", str(out), *more])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run)[0].state_dict()
