"""The scales of the suites: model, data set, solver, number of images and metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from deediff.models import UViTConfig
from trainer.config import Method, Stage, TrainConfig
from trainer.presets import DIGITS, NO_EXITS, PRESETS


@dataclass(frozen=True)
class Scale:
    """The size of every experiment of a suite."""

    config: TrainConfig  # backbone and exits
    shallow: TrainConfig  # the shallow network of DuoDiff
    solver: str
    steps: int
    num_samples: int
    batch_size: int
    thresholds: dict[float, float]  # published τ → τ at this scale
    metrics: tuple[str, ...]  # as in `deediff evaluate --metrics`; empty: images are not evaluated
    init: Path | None = None  # run with the backbone; None: it is trained
    init_method: Method | None = None  # the method of the exits in `init`, trained on its frozen backbone
    calibration: tuple[int, int] = (256, 20)  # images and timesteps
    reference: str | None = None  # real images; None: the training data set


TOY_MODEL = UViTConfig(in_chans=1, patch_size=8, embed_dim=32, num_heads=2, depth=4)
TOY = replace(
    DIGITS,
    model=TOY_MODEL,
    backbone=Stage(steps=4, batch_size=4),
    exits=Stage(steps=4, batch_size=4),
    start="official",
    sample_every=0,
    log_every=1,
)

SCALES: dict[str, Scale] = {
    "cpu": Scale(  # the included backbone of mnist_tiny
        config=replace(DIGITS, sample_every=0),
        shallow=replace(PRESETS["mnist_shallow"].config, sample_every=0),
        solver="ddim",
        steps=50,
        num_samples=1024,
        batch_size=128,
        thresholds={0.05: 0.08, 0.075: 0.1, 0.1: 0.12},
        metrics=("fd-mnist",),
        init=Path("runs/mnist_tiny"),
        init_method=Method(),
    ),
    "paper": Scale(  # U-ViT-S/2 on CIFAR-10, as published
        config=PRESETS["uvit_small"].config,
        shallow=PRESETS["uvit_shallow"].config,
        solver="ddpm",
        steps=1000,
        num_samples=1024,
        batch_size=128,
        thresholds={0.05: 0.05, 0.075: 0.075, 0.1: 0.1},
        metrics=("fid", "kid", "fd-cifar"),
    ),
    "toy": Scale(  # for tests
        config=TOY,
        shallow=replace(TOY, model=replace(TOY_MODEL, depth=2), exits=NO_EXITS),
        solver="ddim",
        steps=6,
        num_samples=4,
        batch_size=4,
        thresholds={0.05: 0.3, 0.075: 0.5, 0.1: 0.7},
        metrics=(),
        calibration=(8, 3),
    ),
}
