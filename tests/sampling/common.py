"""Models and inputs of the sampling tests: within one batch, samples exit at many layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from deediff.diffusion.noise import sample_noise
from deediff.models import EarlyExitModel
from deediff.sampling import Step, sample
from tests.conftest import TINY, TINY_DIT, TINY_UNET, make_model

CONFIGS = {"uvit": TINY, "dit": TINY_DIT, "unet": TINY_UNET}  # the laws hold for every backbone: see the fixture `case`
UNCONDITIONAL = ("unet",)  # takes no classes
SHALLOW = {  # of three blocks
    "uvit": replace(TINY, depth=2),
    "dit": replace(TINY_DIT, depth=3),
    "unet": replace(TINY_UNET, channels=(8,)),
}
NUMBERS = np.arange(16)


def exits_by_definition(u: torch.Tensor, threshold: float) -> torch.Tensor:
    """First layer with u ≤ τ, else N: (N, B) → (B,)."""
    below = u <= np.float32(threshold).item()
    return torch.where(below.any(0), below.int().argmax(0), len(u))


def assert_same_x(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal up to rounding, in units of the largest value: a random network lets x grow from step to step."""
    torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, float(b.abs().max()) / 50), rtol=1e-4)


@dataclass(frozen=True)
class Case:
    """A model of one backbone, noise of 16 samples, and a threshold at which some exit early, some late, some not."""

    model: EarlyExitModel
    conditional: EarlyExitModel | None  # the same network with four classes, the last of which is no class
    x: torch.Tensor  # (16,C,H,W)
    tau: float

    @property
    def n(self) -> int:
        return self.model.num_blocks

    def u(self, x: torch.Tensor, timestep: int) -> torch.Tensor:
        """u of all layers: (N, B)."""
        return self.model.all_exits(x, torch.full((len(x),), timestep))[1]

    def steps(self, **fields: Any) -> list[Step]:
        return list(sample(self.model, **fields))


@cache
def make_case(name: str) -> Case:
    model, conditional = make_model(config=CONFIGS[name]), None
    if name not in UNCONDITIONAL:
        conditional = make_model(config=replace(CONFIGS[name], num_classes=4))
        conditional.null_label = True
    x = sample_noise(3, range(16), 0, model.image_shape)
    _, u = model.all_exits(x, torch.full((16,), 700))
    return Case(model, conditional, x, float(u.amin(dim=0).median()) + 0.01)


MODEL, CONDITIONAL, X, TAU = (getattr(make_case("uvit"), name) for name in ("model", "conditional", "x", "tau"))
