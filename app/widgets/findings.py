"""Titles that several pages use: the finding in one sentence, from the numbers drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def about_exits(mean: NDArray[np.float64], num_blocks: int) -> str:
    """From the mean exit layer of each step (S,), first step first."""
    third = max(1, len(mean) // 3)
    early, late = float(mean[:third].mean()), float(mean[-third:].mean())
    if mean.min() > num_blocks - 0.005:
        return "No sample exits early at any timestep"
    if mean.max() < 0.005:
        return "Every sample skips every step"
    if abs(late - early) < num_blocks / 20:
        return f"Similar exit layers at all timesteps: mean exit layer {mean.mean():.1f} of {num_blocks}"
    when = "early, while the image is mostly noise" if early < late else "late, when the image is nearly clean"
    return (
        f"Most blocks are skipped {when}: mean exit layer {early:.1f} in the first third of steps, {late:.1f} in the "
        f"last, of {num_blocks}"
    )
