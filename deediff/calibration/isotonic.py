"""Isotonic regression: the non-decreasing map that brings predictions nearest to what they should have been."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def isotonic(values: Array, weights: Array) -> Array:
    """The non-decreasing sequence nearest to `values` in weighted squares: (n,), (n,) → (n,).

    Pool adjacent violators (Ayer et al. 1955): neighbours in the wrong order become their mean.
    """
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        length = 1
        while blocks and blocks[-1][0] >= value:
            mean, other, count = blocks.pop()
            value = (mean * other + value * weight) / (other + weight)
            weight, length = weight + other, length + count
        blocks.append((value, weight, length))
    return np.repeat([mean for mean, _, _ in blocks], [length for _, _, length in blocks])


def fit_map(predicted: Array, actual: Array, knots: int) -> tuple[float, float, Array]:
    """Range of `predicted`, and the map's values at `knots` points spread evenly over it. (n,), (n,) → …, …, (knots,).

    Equal predictions count as one; between two of them the map is linear.
    """
    points, which, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    fitted = isotonic(np.bincount(which, actual) / counts, counts.astype(np.float64))
    low, high = float(points[0]), float(points[-1])
    return low, high, np.interp(np.linspace(low, high, knots), points, fitted)
