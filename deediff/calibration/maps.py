"""The maps that correct u: isotonic regression of the measured error on u, per timestep and layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from deediff.calibration.file import Calibration, Floats

KNOTS = 64  # of each map
Array = NDArray[np.float64]


def fit_map(predicted: Array, actual: Array, knots: int) -> tuple[float, float, Array]:
    """Range of `predicted`, and the map's values at `knots` points spread evenly over it. (n,), (n,) → …, …, (knots,).

    The non-decreasing least-squares fit; equal predictions count as one; between two of them the map is linear.
    """
    points, which, counts = np.unique(predicted, return_inverse=True, return_counts=True)
    fitted = isotonic_regression(np.bincount(which, actual) / counts, weights=counts).x
    low, high = float(points[0]), float(points[-1])
    return low, high, np.interp(np.linspace(low, high, knots), points, fitted)


def fit_maps(calibration: Calibration) -> Calibration:
    """This calibration with the map of each timestep and layer, fitted on the `fitted` half of its images."""
    low, high, maps = no_maps(*calibration.low.shape)
    fitted = calibration.fitted
    for k in range(len(calibration.timesteps)):
        for i in calibration.layers:
            predicted, actual = calibration.u[k, fitted, i], calibration.error[k, fitted, i]
            low[k, i], high[k, i], maps[k, i] = fit_map(predicted.astype(np.float64), actual, KNOTS)
    return replace(calibration, low=low, high=high, maps=maps)


def no_maps(timesteps: int, layers: int) -> tuple[Floats, Floats, Floats]:
    """Zeros in place of `low`, `high` and `maps`, for a calibration without them."""
    cell = np.zeros((timesteps, layers), np.float32)
    return cell, cell.copy(), np.zeros((timesteps, layers, KNOTS), np.float32)
