"""Uncertainty estimation modules (UEMs): estimates of each output head's error, one file and one line here per kind."""

from __future__ import annotations

from typing import Any

from deediff.models.uems.attention import AttentionUncertainty
from deediff.models.uems.base import UEM, NetworkShape
from deediff.models.uems.mlp import MLPUncertainty

__all__ = ["UEM", "UEMS", "AttentionUncertainty", "MLPUncertainty", "NetworkShape", "build_uem"]

UEMS: dict[str, type[UEM]] = {
    "mlp": MLPUncertainty,  # DeeDiff, Eq. 5, and AdaDiff's maps
    "attention": AttentionUncertainty,  # the DuoDiff repository's attention probe
}


def build_uem(config: dict[str, Any], shape: NetworkShape) -> UEM:
    """Build a UEM from its `config()`. Raises ValueError for an unknown name or option."""
    options = dict(config)
    name = options.pop("name", None)
    if name not in UEMS:
        raise ValueError(f"unknown UEM {name!r}, expected one of: {', '.join(UEMS)}")
    try:
        return UEMS[name](shape, **options)
    except TypeError as error:
        raise ValueError(f"the UEM's config does not fit {name!r}: {error}") from None
