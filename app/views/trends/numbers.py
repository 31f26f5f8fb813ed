"""The numbers behind the figures of exits, from exit counts (S, N+1): samples that exit at each layer, per step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def arriving(exits: Ints) -> Floats:
    """Share of samples whose exit layer is at least i: (…, N+1) → (…, N+1), from 1 at layer 0 downward."""
    return exits[..., ::-1].cumsum(axis=-1)[..., ::-1] / exits.sum(axis=-1, keepdims=True)


def deviation_within(exits: Ints) -> Floats:
    """Standard deviation of the exit layer over samples, at each step: (S, N+1) → (S,)."""
    p, layers = exits / exits.sum(axis=1, keepdims=True), np.arange(exits.shape[1])
    return np.sqrt(np.maximum(p @ layers**2 - (p @ layers) ** 2, 0))


def repeated_by_schedule(exits: Ints) -> float:
    """Share of decisions that agree with the most frequent exit layer of their timestep."""
    return float(exits.max(axis=1).sum() / exits.sum())
