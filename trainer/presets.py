"""Named trainings: `python -m trainer.run PRESET`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from deediff.models import PRESETS as MODELS
from deediff.models.presets import UVITS
from trainer.config import Method, Stage, TrainConfig


class Preset(NamedTuple):
    """A named training."""

    description: str
    config: TrainConfig


# UEMs, heads and losses of the sources, including the errors of their public code.
METHODS: dict[str, Method] = {
    "ours": Method(),
    "blog": Method(first_timestep=True, sum_over_batch=True, detach_target=False, weight_by_target=True),
    "paper": Method(scope="timestep", timestep_embedding=True),  # Eq. 5
    "adadiff": Method(
        tokens="image",
        map=True,
        detach=True,
        heads="decoder",
        layers=tuple(range(1, 13)),  # its exits follow blocks: there is none before the first
        lambda_u=1 / 13,  # its L_u is a mean over 13 layers, of which the last is no exit here
        share_weights=True,
    ),
}

LAPTOP_BACKBONE = Stage(steps=2_200, lr=2e-3, optimizer="muon", warmup=50, batch_size=64, betas=(0.9, 0.99))
LAPTOP_EXITS = Stage(steps=600, lr=2e-3, warmup=50, batch_size=64, betas=(0.9, 0.99))
NO_EXITS = Stage(steps=0)
DIGITS = TrainConfig(
    dataset="mnist",
    model=replace(UVITS["uvit_tiny"], in_chans=1),
    backbone=LAPTOP_BACKBONE,
    exits=LAPTOP_EXITS,
    start="identity",
    flip=False,
    ema=0.995,
    save_dtype="float16",
    save_every=200,
    sample_every=400,
)
PHOTOS = TrainConfig(
    dataset="cifar10",
    model=UVITS["uvit_tiny"],
    backbone=replace(LAPTOP_BACKBONE, steps=10_000, lr=4e-3, batch_size=128),
    exits=LAPTOP_EXITS,
    start="local",
    ema=0.999,
    save_dtype="float16",
    save_every=500,
)


def cifar10(model: str, **fields: Any) -> TrainConfig:
    """A training on CIFAR-10; as published but for the given fields of TrainConfig."""
    return TrainConfig(dataset="cifar10", model=MODELS[model], **fields)


def trained_together(method: str) -> TrainConfig:
    """U-ViT-S/2 with exits that are trained with the backbone from the start."""
    exits = Stage(steps=500_000, warmup=2500)
    return cifar10("uvit_small", strategy="scratch", exits=exits, method=METHODS[method])


PRESETS: dict[str, Preset] = {
    # On a laptop: 2.8 M parameters, Muon from an identity start, exits on the frozen backbone.
    "mnist_tiny": Preset(
        "Digits on a laptop: U-ViT, width 128, 13 blocks, patch 4, MNIST padded to 32×32",
        DIGITS,  # 140 800 images, then 38 400 for the exits
    ),
    "mnist_dit": Preset(
        "Digits with their classes: DiT, width 96, 7 blocks, patch 4, MNIST padded to 32×32",
        replace(DIGITS, model=MODELS["dit_tiny"], label_dropout=0.1),
    ),
    "mnist_unet": Preset(
        "Digits: U-Net of three resolutions, MNIST padded to 32×32",
        replace(DIGITS, model=MODELS["unet_tiny"], start="official"),
    ),
    "mnist_shallow": Preset(
        "The shallow network of --policy dual for mnist_tiny: three blocks, no exits",
        replace(DIGITS, model=replace(UVITS["uvit_tiny"], in_chans=1, depth=2), exits=NO_EXITS),
    ),
    "uvit_tiny": Preset(
        "CIFAR-10 on a laptop: U-ViT, width 128, 13 blocks, patch 4",
        PHOTOS,  # 1.28 M images
    ),
    "tiny_shallow": Preset(
        "The shallow network of --policy dual for uvit_tiny: three blocks, no exits",
        replace(PHOTOS, model=replace(UVITS["uvit_tiny"], depth=2), exits=NO_EXITS),
    ),
    # On one GPU.
    "uvit_mini": Preset(
        "CIFAR-10 on one GPU: U-ViT, width 256, 13 blocks, patch 2",
        cifar10(
            "uvit_mini",
            backbone=Stage(steps=100_000, lr=4e-4, warmup=1000, batch_size=256),  # 25.6 M images
            exits=Stage(steps=10_000, lr=1e-3, batch_size=256),
        ),
    ),
    # As published: U-ViT-S/2, 44 M parameters, batches of 128.
    "uvit_small": Preset(
        "U-ViT-S/2 on CIFAR-10 as published: 44 M parameters, 500 000 steps",
        cifar10("uvit_small"),  # 64 M images
    ),
    "uvit_shallow": Preset(
        "The shallow network of --policy dual (DuoDiff): U-ViT-S/2 with three blocks, no exits",
        cifar10("uvit_shallow", exits=NO_EXITS),
    ),
    "blog": Preset(
        "The blog's MLP per layer on a frozen U-ViT-S/2, including the errors of its code",
        cifar10("uvit_small", method=METHODS["blog"]),
    ),
    "paper": Preset(
        "DeeDiff as in the paper: UEMs per timestep with its embedding (Eq. 5), all trained together",
        trained_together("paper"),
    ),
    "adadiff": Preset(
        "AdaDiff's public code: maps from detached image tokens, and the network's own output layers",
        trained_together("adadiff"),
    ),
}
