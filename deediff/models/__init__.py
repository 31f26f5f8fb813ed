"""Networks: backbones, UEMs, output heads, and models with early exits."""

from __future__ import annotations

from typing import Any

from deediff.models.backbone import Backbone, BackboneConfig
from deediff.models.dit import DiT, DiTConfig
from deediff.models.early_exit import EarlyExitModel
from deediff.models.presets import PRESETS
from deediff.models.starts import STARTS
from deediff.models.uems import UEM, MLPUncertainty
from deediff.models.unet import UNet, UNetConfig
from deediff.models.uvit import UViT, UViTConfig

__all__ = [
    "BACKBONES",
    "PRESETS",
    "UEM",
    "Backbone",
    "BackboneConfig",
    "DiT",
    "DiTConfig",
    "EarlyExitModel",
    "MLPUncertainty",
    "UNet",
    "UNetConfig",
    "UViT",
    "UViTConfig",
    "build_backbone",
    "make_backbone",
    "model_name",
]

BACKBONES: dict[str, tuple[type[BackboneConfig], type[Backbone]]] = {  # name → config class, network class
    "uvit": (UViTConfig, UViT),
    "dit": (DiTConfig, DiT),
    "unet": (UNetConfig, UNet),
}


def make_backbone(config: BackboneConfig, start: str = "official") -> Backbone:
    """A fresh backbone, initialised as published or by one of `STARTS`. Raises ValueError if the start does not fit."""
    build: Any = next(network for kind, network in BACKBONES.values() if isinstance(config, kind))
    net: Backbone = build(config)
    if start == "official":
        return net
    return STARTS[start](net)


def build_backbone(config: dict[str, Any]) -> Backbone:
    """Build a backbone from its `config()`. Raises ValueError for an unknown name or field."""
    return make_backbone(_read_config(config))


def model_name(config: dict[str, Any]) -> str:
    """Preset of a backbone's `config()`, or its sizes in words. Raises ValueError for an unknown name or field."""
    found = _read_config(config)
    return next((name for name, preset in PRESETS.items() if preset == found), str(found))


def _read_config(config: dict[str, Any]) -> BackboneConfig:
    fields = dict(config)
    name = fields.pop("name", None)
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}, expected: {', '.join(BACKBONES)}")
    try:
        return BACKBONES[name][0](**fields)
    except TypeError as error:
        raise ValueError(f"the backbone's config does not fit {name!r}: {error}") from None
