"""What can be trained: every field of a training, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from deediff.models import PRESETS as MODELS
from deediff.models import UViTConfig


@dataclass(frozen=True)
class Stage:
    """One stage of a training."""

    steps: int
    """Optimiser steps; 0 skips the stage."""
    lr: float = 2e-4
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the weight matrices, with AdamW for the rest; needs about half the steps here."""
    warmup: int = 500
    """Steps of linear warm-up, before the cosine to zero."""
    batch_size: int = 128
    """Images per step, over all processes together."""
    weight_decay: float = 0.03
    """AdamW weight decay."""
    betas: tuple[float, float] = (0.99, 0.999)
    """AdamW momentum coefficients."""
    clip_grad: float = 1.0
    """Largest gradient norm; 0 turns clipping off."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or self.warmup < 0 or not self.lr > 0:
            raise ValueError("a stage needs steps ≥ 0, batch_size ≥ 1, warmup ≥ 0 and lr > 0")


@dataclass(frozen=True)
class TrainConfig:
    """A training: first the backbone, then UEMs and output heads on the frozen backbone."""

    dataset: str
    """cifar10, mnist, or the path of a folder of images."""
    model: UViTConfig = field(default_factory=UViTConfig)
    """The U-ViT."""
    backbone: Stage = field(default_factory=lambda: Stage(steps=500_000, warmup=2500))
    """First stage: the noise prediction network alone (Eq. 4)."""
    exits: Stage = field(default_factory=lambda: Stage(steps=50_000, lr=1e-3))
    """Second stage: UEMs and output heads, the backbone frozen (Eq. 7, 8, 10)."""
    uem: Literal["mlp"] = "mlp"
    """Uncertainty estimation module: mlp is one linear probe per layer."""
    lambda_u: float = 1.0
    """λ, weight of L_u (Eq. 7)."""
    beta_ual: float = 1.0
    """β, weight of L_UAL (Eq. 8)."""
    layer_weight: float = 0.0
    """Weight of the fourth loss L_L (Eq. 10)."""
    init: Path | None = None
    """A run folder or checkpoint to start from (weights only; the optimiser starts fresh)."""
    start: Literal["official", "identity"] = "official"
    """Initial weights without --init: as published, or already answering ε ≈ x_t (saves the slow first phase)."""
    prediction: Literal["epsilon", "x0", "v"] = "epsilon"
    """What the network predicts: the noise, the clean image, or the velocity (Salimans & Ho 2022)."""
    flip: bool = True
    """Random horizontal flips."""
    ema: float = 0.9999
    """Decay of the exponential moving average of the weights, per step."""
    seed: int = 0
    """Seed of the weights, the order of the images, timesteps and noise."""
    out: Path | None = None
    """Run folder; default runs/PRESET."""
    data_root: Path | None = None
    """Folder with the data set in torchvision's layout; default: a cache folder, filled by download."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes CUDA (in bf16), else MPS, else the CPU."""
    save_every: int = 2000
    """Steps between resumable saves (and checkpoints)."""
    sample_every: int = 2000
    """Steps between sample grids, samples/<step>.png in the run folder; 0: none."""
    save_dtype: Literal["float32", "float16"] = "float32"
    """Precision of the checkpoints on disk; float16 halves them (sampling computes in float32 either way)."""
    log_every: int = 50
    """Steps between rows of metrics.parquet and TensorBoard."""

    def __post_init__(self) -> None:
        if min(self.save_every, self.log_every) < 1 or self.sample_every < 0:
            raise ValueError("save_every and log_every must be 1 or more, sample_every 0 or more")
        if self.start == "identity" and self.prediction != "epsilon":
            raise ValueError("--start identity answers ε ≈ x_t, so it needs --prediction epsilon")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, expected a decay in [0, 1)")


MNIST_TINY = replace(MODELS["uvit_tiny"], in_chans=1)

PRESETS: dict[str, tuple[str, TrainConfig]] = {
    "mnist_tiny": (
        "Digits on a laptop: U-ViT, width 128, 13 blocks, patch 4, MNIST padded to 32×32",
        TrainConfig(
            dataset="mnist",
            model=MNIST_TINY,
            backbone=Stage(steps=2_200, lr=2e-3, optimizer="muon", warmup=50, batch_size=64, betas=(0.9, 0.99)),
            exits=Stage(steps=600, lr=2e-3, warmup=50, batch_size=64, betas=(0.9, 0.99)),
            start="identity",
            flip=False,
            ema=0.995,
            save_dtype="float16",
            save_every=200,
            sample_every=400,
        ),
    ),
    "uvit_tiny": (
        "CIFAR-10 at laptop scale: U-ViT, width 128, 13 blocks, patch 4",
        TrainConfig(
            dataset="cifar10",
            model=MODELS["uvit_tiny"],
            backbone=Stage(steps=20_000, lr=2e-3, optimizer="muon", warmup=50, batch_size=64, betas=(0.9, 0.99)),
            exits=Stage(steps=600, lr=2e-3, warmup=50, batch_size=64, betas=(0.9, 0.99)),
            start="identity",
            ema=0.999,
            save_dtype="float16",
            save_every=500,
        ),
    ),
    "uvit_mini": (
        "CIFAR-10 on one GPU: U-ViT, width 256, 13 blocks, patch 2",
        TrainConfig(
            dataset="cifar10",
            model=MODELS["uvit_mini"],
            backbone=Stage(steps=100_000, lr=4e-4, warmup=1000, batch_size=256),
            exits=Stage(steps=10_000, lr=1e-3, batch_size=256),
        ),
    ),
    "uvit_small": (
        "U-ViT-S/2 on CIFAR-10 as published: 44 M parameters, 500 000 steps",
        TrainConfig(dataset="cifar10", model=MODELS["uvit_small"]),
    ),
}
