"""Models and inputs of the sampling tests: within one batch, samples exit at many layers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from deediff.diffusion.noise import sample_noise
from tests.conftest import TINY, make_model

MODEL = make_model()


def u_of_all_layers(x: torch.Tensor, timestep: int) -> torch.Tensor:
    """(N, B)."""
    return MODEL.all_exits(x, torch.full((len(x),), timestep))[1]


def a_threshold_that_splits(x: torch.Tensor, timestep: int) -> float:
    """A threshold at which some samples of a batch exit early, some late, some not at all."""
    return float(u_of_all_layers(x, timestep).amin(dim=0).median()) + 0.01


def exits_by_definition(u: torch.Tensor, threshold: float) -> torch.Tensor:
    """First layer with u ≤ τ, else N: (N, B) → (B,)."""
    below = u <= np.float32(threshold).item()
    return torch.where(below.any(0), below.int().argmax(0), len(u))


X = sample_noise(3, range(16), 0, MODEL.image_shape)
TAU = a_threshold_that_splits(X, 700)
NUMBERS = np.arange(16)
CONDITIONAL = make_model(config=replace(TINY, num_classes=4))
CONDITIONAL.null_label = True
