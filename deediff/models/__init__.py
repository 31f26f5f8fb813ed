"""Networks: backbones, UEMs, and the two together."""

from __future__ import annotations

from typing import Any

from deediff.models.backbone import Backbone
from deediff.models.early_exit import EarlyExitModel
from deediff.models.uncertainty import UEM, MLPUncertainty
from deediff.models.uvit import PRESETS, UViT, UViTConfig, identity_start_

__all__ = [
    "PRESETS", "UEM", "Backbone", "BackboneConfig", "EarlyExitModel", "MLPUncertainty", "UViT", "UViTConfig",
    "build_backbone", "make_backbone",
]  # fmt: skip

BackboneConfig = UViTConfig  # of any backbone; a union once there is another


def make_backbone(config: BackboneConfig, identity_start: bool = False) -> Backbone:
    """A fresh backbone; with `identity_start` one that answers ε ≈ x_t before any training."""
    net = UViT(config)
    return identity_start_(net) if identity_start else net


def build_backbone(config: dict[str, Any]) -> Backbone:
    """Build a backbone from its `config()`. Raises ValueError for an unknown name or field."""
    fields = dict(config)
    name = fields.pop("name", None)
    if name != "uvit":
        raise ValueError(f"unknown backbone {name!r}, expected: uvit")
    try:
        return make_backbone(UViTConfig(**fields))
    except TypeError as error:
        raise ValueError(f"backbone config does not fit a U-ViT: {error}") from None
