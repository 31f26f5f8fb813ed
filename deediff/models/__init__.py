"""Networks: backbones, UEMs, and the two together."""

from __future__ import annotations

from typing import Any

from deediff.models.backbone import Backbone
from deediff.models.early_exit import EarlyExitModel
from deediff.models.starts import STARTS
from deediff.models.uncertainty import UEM, MLPUncertainty
from deediff.models.uvit import PRESETS, UViT, UViTConfig

__all__ = [
    "BACKBONES", "PRESETS", "UEM", "Backbone", "BackboneConfig", "EarlyExitModel", "MLPUncertainty", "UViT",
    "UViTConfig", "build_backbone", "make_backbone", "model_name",
]  # fmt: skip

BackboneConfig = UViTConfig  # of any backbone; a union once there is another
BACKBONES: dict[str, tuple[type, type[Backbone]]] = {"uvit": (UViTConfig, UViT)}  # its config's class, and its own


def make_backbone(config: BackboneConfig, start: str = "official") -> Backbone:
    """A fresh backbone, its weights as published or one of STARTS, which answer ε ≈ x_t before any training."""
    net = next(build(config) for kind, build in BACKBONES.values() if isinstance(config, kind))
    if start == "official":
        return net
    if not isinstance(net, UViT):
        raise ValueError(f"a start other than official is known for U-ViTs only, this is a {type(net).__name__}")
    return STARTS[start](net)


def build_backbone(config: dict[str, Any]) -> Backbone:
    """Build a backbone from its `config()`. Raises ValueError for an unknown name or field."""
    return make_backbone(_read_config(config))


def model_name(config: dict[str, Any]) -> str:
    """Of a backbone's `config()`: its preset, or what it looks like. Raises ValueError as `build_backbone`."""
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
