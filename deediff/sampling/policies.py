"""Exit policies: when does a sample leave the network?

A policy sees one layer at a time. To add one: subclass `ExitPolicy`, register it in `POLICIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from deediff.errors import UserError
from deediff.models import EarlyExitModel


@dataclass(frozen=True)
class Visit:
    """The samples that reach the input of a block, at one denoising step."""

    layer: int  # 0 … N−1: this many blocks have been run
    step: int  # denoising step, 0 first
    timestep: int  # diffusion t
    samples: Tensor  # (B,) sample numbers
    uncertainty: Tensor | None  # (B,) u of this layer, when the policy needs it


class ExitPolicy(ABC):
    """Decides per sample. `spec` is the text that names the policy everywhere."""

    needs_uncertainty: ClassVar[bool] = False  # evaluates the UEM of every layer up to the exit
    needs_heads: ClassVar[bool] = True
    spec: str

    @abstractmethod
    def leaves(self, visit: Visit) -> Tensor | bool:
        """Which samples leave here: (B,) bool, or one bool for all of them."""

    def check(self, model: EarlyExitModel) -> None:
        """Raises UserError when the model lacks what this policy needs."""
        if self.needs_uncertainty and model.uem is None:
            raise UserError(f"policy {self.spec} needs UEMs, but this model has none: use 'never', or train its exits")
        if self.needs_heads and model.heads is None:
            raise UserError(f"policy {self.spec} needs output heads, but this model has none: train its exits")


class Never(ExitPolicy):
    """The full network."""

    needs_heads = False
    spec = "never"

    def leaves(self, visit: Visit) -> bool:
        return False


class Threshold(ExitPolicy):
    """Exit when u ≤ τ (DeeDiff/AdaDiff). τ is rounded to float32 here, once."""

    needs_uncertainty = True

    def __init__(self, threshold: float):
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}, expected a number in [0, 1] (exit when u ≤ threshold)")
        self.threshold = np.float32(threshold)
        self.spec = f"threshold:{threshold:g}"

    def leaves(self, visit: Visit) -> Tensor:
        assert visit.uncertainty is not None
        return visit.uncertainty <= float(self.threshold)


class Fixed(ExitPolicy):
    """Every sample leaves at the same layer at every step; the UEMs are not evaluated."""

    def __init__(self, layer: int):
        if layer < 0:
            raise UserError(f"exit layer is {layer}, expected 0 or more")
        self.layer = layer
        self.spec = f"fixed:{layer}"

    def leaves(self, visit: Visit) -> bool:
        return visit.layer == self.layer

    def check(self, model: EarlyExitModel) -> None:
        if self.layer > model.num_blocks:
            raise UserError(f"exit layer is {self.layer}, but this model has only {model.num_blocks} blocks")
        if self.layer < model.num_blocks:
            super().check(model)


class Replay(ExitPolicy):
    """Given exit layers, whatever the weights say: for benchmarks. Evaluates the UEMs like a threshold."""

    needs_uncertainty = True
    spec = "replay"

    def __init__(self, exit_layers: Tensor):  # (samples, steps)
        self.exit_layers = exit_layers

    def leaves(self, visit: Visit) -> Tensor:
        return self.exit_layers[visit.samples, visit.step] == visit.layer


POLICIES: dict[str, str] = {
    "never": "the full network",
    "threshold:τ": "exit when the uncertainty is ≤ τ, for example threshold:0.075",
    "fixed:i": "every sample leaves after i blocks, for example fixed:6",
}


def make_policy(spec: str | ExitPolicy) -> ExitPolicy:
    """A policy from its text, for example 'threshold:0.075'. Raises UserError when it means nothing."""
    if isinstance(spec, ExitPolicy):
        return spec
    name, _, argument = spec.partition(":")
    try:
        if spec == "never":
            return Never()
        if name == "threshold":
            return Threshold(float(argument))
        if name == "fixed":
            return Fixed(int(argument))
    except UserError:
        raise
    except ValueError:
        raise UserError(f"policy {spec!r}: {argument!r} is not a number, expected for example {name}:0.075") from None
    raise UserError(f"unknown policy {spec!r}, expected one of: {', '.join(POLICIES)}")


def as_mask(leaves: Tensor | bool, batch: int, device: torch.device) -> Tensor:
    """(B,) bool."""
    return leaves if isinstance(leaves, Tensor) else torch.full((batch,), leaves, device=device)
