"""Polynomials in the log-SNR through a sample's last evaluations (Liu et al. 2025, TaylorSeer)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ORDERS = (0, 1, 2)  # higher ones gain nothing and amplify noise

Floats = NDArray[np.float64]


def extrapolation_weights(points: Floats, at: float, order: int) -> Floats:
    """Weights of the last evaluations in their value at log-SNR `at`: (K, B), the newest last → (K, B).

    Per sample the polynomial of order `order` in Lagrange's form, or of the highest order that its evaluations allow;
    NaN in `points` means none. A sample without evaluations has weights of zero.
    """
    points = points.copy()
    points[: max(0, len(points) - order - 1)] = np.nan
    known = ~np.isnan(points)
    weights = known.astype(np.float64)
    for k, j in np.ndindex(len(points), len(points)):
        if k != j:
            both = known[k] & known[j]
            distance = np.where(both, points[k] - points[j], 1.0)
            weights[k] *= np.where(both, (at - points[j]) / distance, 1.0)
    return weights
