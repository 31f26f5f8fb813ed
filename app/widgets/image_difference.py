"""An image and its full-network twin of the same seed: what early exit changed."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from app.widgets.figures import DIFFERENCE

AMPLIFY = 4  # differences are shown this much larger
LEGEND = "Differences: orange is brighter than the full network's image, purple is darker, grey is equal."


def image_difference(mine: NDArray[np.uint8], full: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(…,C,H,W) twice → a picture of their difference (…,3,H,W), and its mean size in grey levels (…).

    The picture is on a diverging scale around no difference, amplified, and the mean of the channels.
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
