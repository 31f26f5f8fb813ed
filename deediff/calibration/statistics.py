"""How well u matches the measured errors: calibration error, rank correlation, reliability curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deediff.calibration.file import Calibration, Floats

ECE_BINS = 10
Array = NDArray[np.float64]


def expected_calibration_error(u: Floats, error: Floats, bins: int = ECE_BINS) -> Array:
    """ECE = Σ_b n_b/M · |mean u − mean error| of bin b: (T', M, N) twice → (T', N).

    Each bin holds the same number of images: at a given layer and timestep u covers a small part of [0, 1], which
    would fall into one bin of equal width (Guo et al. 2017, with adaptive bins as in Nixon et al. 2019).
    """
    order = np.argsort(u, axis=1)
    gap = np.take_along_axis(u.astype(np.float64) - error, order, axis=1)
    return sum(np.abs(part.sum(axis=1)) for part in np.array_split(gap, bins, axis=1)) / u.shape[1]  # type: ignore[return-value]


def rank_correlation(u: Floats, error: Floats) -> Array:
    """Spearman's ρ across images, separately for each timestep and layer: (T', M, N) twice → (T', N).

    NaN where u or the error is the same for all images.
    """

    def ranks(values: Floats) -> Array:
        flat = pd.DataFrame(values.transpose(1, 0, 2).reshape(values.shape[1], -1)).rank().to_numpy()
        return flat - flat.mean(axis=0)

    a, b = ranks(u), ranks(error)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return rho.reshape(u.shape[0], u.shape[2])


def reliability(calibration: Calibration, bins: int = ECE_BINS) -> pd.DataFrame:
    """Reliability curves: `timestep`, `layer`, `bin`, its `centre`, mean `predicted` u, mean `actual` error, `count`.

    One row per bin; the bins are those of `expected_calibration_error`.
    """
    rows = []
    for k, timestep in enumerate(calibration.timesteps.tolist()):
        for i in calibration.layers:
            order = np.argsort(calibration.u[k, :, i])
            for number, members in enumerate(np.array_split(order, bins)):
                if len(members):
                    u, error = calibration.u[k, members, i], calibration.error[k, members, i]
                    centre = float(u.min() + u.max()) / 2
                    rows.append((timestep, i, number, centre, float(u.mean()), float(error.mean()), len(members)))
    return pd.DataFrame(rows, columns=["timestep", "layer", "bin", "centre", "predicted", "actual", "count"])
