"""The difference between two images of the same seed, with early exit and by the full network."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from app.widgets.figures import DIFFERENCE

AMPLIFY = 4  # factor of the differences on screen
LEGEND = "Differences: orange is brighter than the full network's image, purple is darker, grey is equal."


def image_difference(mine: NDArray[np.uint8], full: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(…,C,H,W) twice → a picture of their difference (…,3,H,W), and its mean absolute value in grey levels (…).

    The picture shows the mean over channels, amplified, on a diverging scale centred on 0.
    """
    change = mine.astype(np.int16) - full.astype(np.int16)
    signed = np.clip(128 + AMPLIFY * change.mean(axis=-3), 0, 255).round().astype(np.uint8)
    return np.moveaxis(_scale()[signed], -1, -3), np.abs(change).mean(axis=(-3, -2, -1))


@cache
def _scale() -> NDArray[np.uint8]:
    """(256, 3) RGB."""
    from plotly.colors import sample_colorscale

    colors = sample_colorscale(DIFFERENCE, list(np.linspace(0, 1, 256)), colortype="tuple")
    return (np.asarray(colors) * 255).round().astype(np.uint8)
