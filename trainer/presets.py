"""What can be trained: every field of a training, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from deediff.diffusion.losses import LossOptions
from deediff.models import PRESETS as MODELS
from deediff.models import BackboneConfig, UViTConfig

Precision = Literal["auto", "float32", "bfloat16"]


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
class Method:
    """UEMs, heads and losses. The last six fields are errors of public code, off unless a source is reproduced."""

    uem: Literal["mlp", "attention"] = "mlp"
    """Uncertainty estimation module: a linear probe per token, or a learned query that attends over the tokens."""
    scope: Literal["layer", "timestep", "layer_timestep"] = "layer"
    """Own UEM weights per layer, per timestep, or both (mlp)."""
    tokens: Literal["auto", "all", "image"] = "auto"
    """What the UEM reads; auto: all (mlp), those of the image (attention)."""
    timestep_embedding: bool = False
    """Append the timestep's embedding to every token that the UEM reads: Eq. 5, literally (mlp)."""
    map: bool = False
    """One uncertainty per value of the image instead of one per token (mlp, AdaDiff)."""
    aggregation: Literal["mean", "max", "sum"] = "mean"
    """How the UEM's values become one; sum is normalised by their number (mlp)."""
    detach: bool = False
    """No gradient from the UEM into the network."""
    layers: tuple[int, ...] = ()
    """The layers that get an exit; none given: all."""
    heads: Literal["each", "shared", "decoder"] = "each"
    """An output head per exit, one for all, or the network's own last layers (AdaDiff)."""
    lambda_u: float = 1.0
    """λ, weight of L_u (Eq. 7)."""
    beta_ual: float = 1.0
    """β, weight of L_UAL (Eq. 8)."""
    layer_weight: float = 0.0
    """Weight of the fourth loss L_L (Eq. 10)."""
    first_timestep: bool = False
    """Error: UEMs per timestep take the first sample's timestep for the whole batch (blog)."""
    sum_over_batch: bool = False
    """Error: L_u is summed over the batch instead of averaged (blog)."""
    detach_target: bool = True
    """Off is an error: L_u's gradient then flows through its target into heads and backbone (blog)."""
    weight_by_target: bool = False
    """Error: L_UAL is weighted with its target û, gradient included, instead of u (blog)."""
    share_weights: bool = False
    """Error: L_UAL is weighted with the exits' shares of the batch's certainty, gradient included (AdaDiff)."""

    def losses(self) -> LossOptions:
        """The options of `early_exit_loss`."""
        return LossOptions(**{option.name: getattr(self, option.name) for option in fields(LossOptions)})

    def uem_config(self) -> dict[str, Any]:
        """For `EarlyExitModel.add_exits`. Raises ValueError for options that this UEM has not."""
        config: dict[str, Any] = {"name": self.uem, "scope": self.scope, "detach": self.detach}
        config |= {} if self.tokens == "auto" else {"tokens": self.tokens}
        config |= {"layers": list(self.layers)} if self.layers else {}
        own = ("timestep_embedding", "map", "aggregation", "first_timestep")
        if self.map and self.tokens == "all":
            raise ValueError("a map has a value per value of the image, so it reads image tokens: leave tokens out")
        if self.uem == "mlp":
            return config | {name: getattr(self, name) for name in own}
        if set_ := [name for name in own if getattr(self, name) not in (False, "mean")]:
            raise ValueError(f"an attention UEM has no {', '.join(set_)}: leave it out, or use --method.uem mlp")
        return config


# The choices of the sources, their errors included (blog: MLP per layer, frozen; see SCIENCE in the papers named).
METHODS: dict[str, Method] = {
    "ours": Method(),
    "blog": Method(first_timestep=True, sum_over_batch=True, detach_target=False, weight_by_target=True),
    "paper": Method(scope="timestep", timestep_embedding=True),
    "adadiff": Method(  # its L_u is a mean over 13 exits; the last is no exit here
        tokens="image",
        map=True,
        detach=True,
        heads="decoder",
        layers=tuple(range(1, 13)),
        lambda_u=1 / 13,
        share_weights=True,
    ),
}


@dataclass(frozen=True)
class TrainConfig:
    """A training: the backbone, then UEMs and output heads on it (or all together: see strategy)."""

    dataset: str
    """cifar10, mnist, or the path of a folder of images."""
    model: BackboneConfig = field(default_factory=UViTConfig)
    """The backbone, a U-ViT."""
    backbone: Stage = field(default_factory=lambda: Stage(steps=500_000, warmup=2500))
    """First stage: the noise prediction network alone (Eq. 4)."""
    exits: Stage = field(default_factory=lambda: Stage(steps=50_000, lr=1e-3))
    """Second stage: UEMs and output heads (Eq. 7, 8, 10), the backbone frozen or with them."""
    strategy: Literal["frozen", "finetuned", "scratch"] = "frozen"
    """The backbone in the second stage: frozen, trained on with the exits (Eq. 9), or scratch: there is no first."""
    method: Method = field(default_factory=Method)
    """UEMs, heads and losses."""
    init: Path | None = None
    """A run folder or checkpoint to start from (weights only; the optimiser starts fresh)."""
    start: Literal["official", "identity", "local"] = "official"
    """Initial weights without --init: as published, or already answering ε ≈ x_t, which saves the slow first phase;
    local: with attention to neighbouring patches, too."""
    prediction: Literal["epsilon", "x0", "v"] = "epsilon"
    """What the network predicts: the noise, the clean image, or the velocity (Salimans & Ho 2022)."""
    flip: bool = True
    """Random horizontal flips."""
    label_dropout: float = 0.0
    """Share of labels replaced by the last, which means none: for guidance (U-ViT: 0.15); with --model.num-classes."""
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
    precision: Precision = "auto"
    """Of the products in training; auto: bfloat16 on CUDA, float32 elsewhere. CPUs with AMX gain from bfloat16, too."""
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
        if self.start != "official" and self.prediction != "epsilon":
            raise ValueError(f"--start {self.start} answers ε ≈ x_t, so it needs --prediction epsilon")
        if self.strategy == "scratch" and self.backbone.steps:
            object.__setattr__(self, "backbone", replace(self.backbone, steps=0))
        if not 0 <= self.label_dropout < 1 or (self.label_dropout and not self.model.num_classes):
            raise ValueError(
                f"label_dropout is {self.label_dropout}, expected a share in [0, 1), and above 0 only with classes "
                "(--model.num-classes)"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}, expected a decay in [0, 1)")


# Laptop scale: Muon from an identity start, a frozen backbone for the exits.
_BACKBONE = Stage(steps=2_200, lr=2e-3, optimizer="muon", warmup=50, batch_size=64, betas=(0.9, 0.99))
_EXITS = Stage(steps=600, lr=2e-3, warmup=50, batch_size=64, betas=(0.9, 0.99))
_DIGITS = TrainConfig(
    dataset="mnist",
    model=replace(MODELS["uvit_tiny"], in_chans=1),
    backbone=_BACKBONE,
    exits=_EXITS,
    start="identity",
    flip=False,
    ema=0.995,
    save_dtype="float16",
    save_every=200,
    sample_every=400,
)
_TOGETHER = TrainConfig(  # the published network, its exits trained with it from the start
    dataset="cifar10",
    model=MODELS["uvit_small"],
    strategy="scratch",
    exits=Stage(steps=500_000, warmup=2500),
)

PRESETS: dict[str, tuple[str, TrainConfig]] = {
    "mnist_tiny": ("Digits on a laptop: U-ViT, width 128, 13 blocks, patch 4, MNIST padded to 32×32", _DIGITS),
    "uvit_tiny": (
        "CIFAR-10 at laptop scale: U-ViT, width 128, 13 blocks, patch 4",
        TrainConfig(
            dataset="cifar10",
            model=MODELS["uvit_tiny"],
            backbone=replace(_BACKBONE, steps=10_000, lr=4e-3, batch_size=128),
            exits=_EXITS,
            start="local",
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
    "uvit_shallow": (
        "DuoDiff's shallow network for --policy dual: U-ViT-S/2 with three blocks, no exits",
        TrainConfig(dataset="cifar10", model=MODELS["uvit_shallow"], exits=Stage(steps=0)),
    ),
    "mnist_shallow": (
        "The same for mnist_tiny",
        replace(_DIGITS, model=replace(MODELS["uvit_tiny"], in_chans=1, depth=2), exits=Stage(steps=0)),
    ),
    "blog": (
        "The blog's MLP per layer on U-ViT-S/2, frozen, the errors of its code included",
        TrainConfig(dataset="cifar10", model=MODELS["uvit_small"], method=METHODS["blog"]),
    ),
    "paper": (
        "DeeDiff as the paper writes it: Eq. 5 per timestep with its embedding, all trained together",
        replace(_TOGETHER, method=METHODS["paper"]),
    ),
    "adadiff": (
        "AdaDiff's public code: maps from detached image tokens after each block, the network's own head, no exit 0",
        replace(_TOGETHER, method=METHODS["adadiff"]),
    ),
}
