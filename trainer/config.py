"""The configuration of a training: every field, with its default and help text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from deediff.cli.command import defaults_to
from deediff.diffusion.losses import LossOptions
from deediff.errors import UserError
from deediff.models import BackboneConfig, UViTConfig
from deediff.photos.options import Background
from deediff.settings import Device

Precision = Literal["auto", "float32", "bfloat16"]
NO_DATA = "none"  # the data set of a training on the network's own trajectories


@dataclass(frozen=True)
class Stage:
    """One stage of a training."""

    steps: int
    """Optimiser steps; 0 skips the stage."""
    lr: float = 2e-4
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: Muon for the weight matrices, AdamW for all other parameters. Here it needs about half the steps."""
    warmup: int = 500
    """Steps of linear warm-up. A cosine decay to zero follows."""
    batch_size: int = 128
    """Images per step, summed over all processes."""
    weight_decay: float = 0.03
    """AdamW weight decay."""
    betas: tuple[float, float] = (0.99, 0.999)
    """AdamW momentum coefficients."""
    clip_grad: float = 1.0
    """Maximum gradient norm; 0: no clipping."""

    def __post_init__(self) -> None:
        for name, lowest in (("steps", 0), ("batch_size", 1), ("warmup", 0)):
            if getattr(self, name) < lowest:
                raise UserError(f"{name} of a stage is {getattr(self, name)}, expected {lowest} or more")
        if not 0 < self.lr < math.inf:
            raise UserError(f"lr of a stage is {self.lr}, expected a number above 0")
        for name in ("weight_decay", "clip_grad"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} of a stage is {getattr(self, name)}, expected 0 or more")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"betas of a stage are {self.betas}, expected two numbers in [0, 1)")


@dataclass(frozen=True)
class Method:
    """UEMs, heads and losses. The last five fields reproduce errors of public code and are off by default."""

    uem: Literal["mlp", "attention"] = "mlp"
    """Uncertainty estimation module: a linear probe per token, or a learned query with attention over the tokens."""
    scope: Literal["layer", "timestep", "layer_timestep"] = "layer"
    """UEM weights per layer, per timestep, or per layer and timestep (mlp)."""
    tokens: Literal["auto", "all", "image"] = "auto"
    """Tokens that the UEM reads; auto: all tokens (mlp), image tokens (attention)."""
    timestep_embedding: bool = False
    """Append the timestep embedding to every token that the UEM reads (Eq. 5; mlp)."""
    map: bool = False
    """One uncertainty per pixel and channel instead of one per token (AdaDiff; mlp)."""
    aggregation: Literal["mean", "max", "sum"] = "mean"
    """Aggregation of the UEM's values into one; sum is divided by the number of values (mlp)."""
    detach: bool = False
    """Stop gradients from the UEM into the network."""
    layers: Annotated[tuple[int, ...], defaults_to("all", "INT [INT ...]")] = ()
    """Layers with an exit."""
    heads: Literal["each", "shared", "decoder"] = "each"
    """Output heads: one per exit, one shared, or the network's own output layers (AdaDiff)."""
    head: Literal["linear", "timestep", "branch"] = "linear"
    """Kind of head: a linear map per token, one that depends on the timestep, or a transformer block before it."""
    target: Literal["noise", "full"] = "noise"
    """What UEMs and heads learn: the backbone's training target, or the prediction of the full, frozen network."""
    lambda_u: float = 1.0
    """λ, weight of L_u (Eq. 7)."""
    beta_ual: float = 1.0
    """β, weight of L_UAL (Eq. 8)."""
    layer_weight: float = 0.0
    """Weight of the fourth loss L_L (Eq. 10)."""
    first_timestep: bool = False
    """Error: UEMs per timestep use the first sample's timestep for the whole batch (blog)."""
    sum_over_batch: bool = False
    """Error: L_u is summed over the batch instead of averaged (blog)."""
    detach_target: bool = True
    """Detach the target of L_u. Off is an error: gradients then flow through it into heads and backbone (blog)."""
    weight_by_target: bool = False
    """Error: L_UAL is weighted by the target û, with its gradient, instead of u (blog)."""
    share_weights: bool = False
    """Error: L_UAL is weighted by each exit's share of the batch's certainty, with its gradient (AdaDiff)."""

    def __post_init__(self) -> None:
        for name in ("lambda_u", "beta_ual", "layer_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}, expected 0 or more")

    def losses(self) -> LossOptions:
        """The options of `early_exit_loss`."""
        return LossOptions(**{option.name: getattr(self, option.name) for option in fields(LossOptions)})

    def uem_config(self) -> dict[str, Any]:
        """The UEM's configuration for `EarlyExitModel.add_exits`. Raises UserError for options that it lacks."""
        config: dict[str, Any] = {"name": self.uem, "scope": self.scope, "detach": self.detach}
        config |= {} if self.tokens == "auto" else {"tokens": self.tokens}
        config |= {"layers": list(self.layers)} if self.layers else {}
        own = ("timestep_embedding", "map", "aggregation", "first_timestep")
        if self.map and self.tokens == "all":
            raise UserError("a map has a value per pixel, so it reads image tokens: leave tokens out")
        if self.uem == "mlp":
            return config | {name: getattr(self, name) for name in own}
        if set_ := [name for name in own if getattr(self, name) not in (False, "mean")]:
            raise UserError(f"an attention UEM has no {', '.join(set_)}: leave it out, or use --method.uem mlp")
        return config


@dataclass(frozen=True)
class TrainConfig:
    """A training: first the backbone, then UEMs and output heads (strategy scratch: all together)."""

    dataset: Annotated[str, tyro.conf.arg(aliases=("--data",))]
    """cifar10, mnist, or a folder of images; none: exits are distilled on the own trajectories of --init."""
    model: BackboneConfig = field(default_factory=UViTConfig)
    """The backbone."""
    backbone: Stage = field(default_factory=lambda: Stage(steps=500_000, warmup=2500))
    """First stage: the backbone alone (Eq. 4)."""
    exits: Stage = field(default_factory=lambda: Stage(steps=50_000, lr=1e-3))
    """Second stage: UEMs and output heads (Eq. 7, 8, 10), with the backbone frozen or trained."""
    strategy: Literal["frozen", "finetuned", "scratch"] = "frozen"
    """Backbone in the second stage: frozen, or finetuned with the exits (Eq. 9). scratch: no first stage."""
    method: Method = field(default_factory=Method)
    """UEMs, heads and losses."""
    init: Annotated[Path | None, defaults_to("random weights, by --start")] = None
    """A run folder or checkpoint to start from: backbone weights only, with a new optimiser."""
    start: Literal["official", "identity", "local"] = "official"
    """official: as published. identity: predicts ε ≈ x_t. local: identity, with attention to neighbouring patches."""
    prediction: Literal["epsilon", "x0", "v"] = "epsilon"
    """Prediction target: the noise, the clean image, or the velocity (Salimans & Ho 2022)."""
    background: Background = "white"
    """Folders of images: colour behind transparent parts."""
    skip_bad: bool = False
    """Folders of images: pass unreadable files over. They are listed before the first step."""
    flip: bool = True
    """Random horizontal flips."""
    label_dropout: float = 0.0
    """Probability of replacing a label by the last class, the null label of guidance (U-ViT: 0.15)."""
    ema: float = 0.9999
    """Decay of the exponential moving average of the weights, per step."""
    seed: int = 0
    """Seed of the weights, data order, timesteps and noise."""
    out: Annotated[Path | None, defaults_to("runs/PRESET")] = None
    """Run folder."""
    data_root: Annotated[Path | None, defaults_to("a cache folder, with download")] = None
    """Folder with the data set in torchvision's layout."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""
    precision: Precision = "auto"
    """Precision of training; auto: bfloat16 on CUDA, float32 elsewhere. bfloat16 is also faster on CPUs with AMX."""
    save_every: int = 2000
    """Steps between checkpoints and resume files."""
    sample_every: int = 2000
    """Steps between sample grids, samples/<step>.png in the run folder; 0: none."""
    save_dtype: Literal["float32", "float16"] = "float32"
    """Precision of checkpoints on disk; float16 halves their size (sampling computes in float32)."""
    exits_only: bool = False
    """Store UEMs and heads alone, and read the frozen backbone from the checkpoint of --init, which must stay."""
    log_every: int = 50
    """Steps between rows of metrics.parquet and TensorBoard."""

    def __post_init__(self) -> None:
        if min(self.save_every, self.log_every) < 1 or self.sample_every < 0:
            raise UserError("save_every and log_every must be 1 or more, sample_every 0 or more")
        if self.start != "official" and self.prediction != "epsilon":
            raise UserError(f"--start {self.start} predicts ε ≈ x_t, so it needs --prediction epsilon")
        if self.strategy == "scratch" and self.backbone.steps:
            object.__setattr__(self, "backbone", replace(self.backbone, steps=0))
        if not 0 <= self.label_dropout < 1 or (self.label_dropout and not self.model.num_classes):
            raise UserError(
                f"label_dropout is {self.label_dropout}, expected a probability in [0, 1), and above 0 only with "
                "classes (--model.num-classes)"
            )
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed is {self.seed}, expected 0 or more (and below 2^63)")
        if not 0 <= self.ema < 1:
            raise UserError(f"ema is {self.ema}, expected a decay in [0, 1)")
