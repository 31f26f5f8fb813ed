"""Noise that depends on (seed, sample, draw) only, not on batches, processes or the order of computation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def sample_noise(seed: int, samples: Sequence[int], draw: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal (len(samples), *shape) float32 on the CPU.

    Draw 0 is the initial image, draw s+1 the noise added by denoising step s. Philox 4×64, a counter-based
    generator (Salmon et al. 2011), keyed by seed and sample, with the draw as its counter.
    """
    out = np.empty((len(samples), *shape), dtype=np.float32)
    for row, sample in zip(out, samples, strict=True):
        bits = np.random.Philox(key=[seed, sample], counter=[0, 0, 0, draw])
        np.random.Generator(bits).standard_normal(dtype=np.float32, out=row)
    return torch.from_numpy(out)
