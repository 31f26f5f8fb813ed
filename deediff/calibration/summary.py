"""The JSON summary of a calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.calibration.file import Calibration
from deediff.calibration.npz import FORMAT_VERSION
from deediff.calibration.statistics import expected_calibration_error, rank_correlation


def summarise(calibration: Calibration) -> dict[str, Any]:
    """The statistics as JSON: one row per layer (means over the timesteps), and tables over timestep and layer.

    The ECE before and after recalibration is measured on the images that the maps were not fitted on.
    `mse` is that of the noise ε, whatever the network predicts; `mse_early`, `mse_middle` and `mse_late` are means
    over the thirds of the denoising (early: large t).
    """
    held_out, layers = ~calibration.fitted, calibration.layers
    u, error = calibration.u[:, held_out], calibration.error[:, held_out]
    before = expected_calibration_error(u, error)
    after = expected_calibration_error(calibration.recalibrated().u[:, held_out], error)
    rho = rank_correlation(calibration.u, calibration.error)
    to_noise = np.square(calibration.info.get("epsilon_scale", np.ones(len(calibration.timesteps))))
    mse = calibration.squared_error.mean(axis=1) * to_noise[:, None]  # (T', N+1)
    mean_u, mean_error = calibration.u.mean(axis=1), calibration.error.mean(axis=1)  # (T', N)
    late, middle, early = np.array_split(np.arange(len(calibration.timesteps)), 3)
    columns = {"u": mean_u, "error": mean_error, "ece": before, "ece_recalibrated": after, "rank": rho}
    rows = []
    for i in [*layers, calibration.u.shape[2]]:
        row: dict[str, Any] = {"layer": i}
        for name, table in columns.items():
            row[name] = float(table[:, i].mean()) if i in layers else None
        for name, part in (("mse_early", early), ("mse_middle", middle), ("mse_late", late)):
            row[name] = float(mse[part, i].mean()) if len(part) else None
        rows.append({key: None if value != value else value for key, value in row.items()})
    over_layers = mean_u[:, layers]
    rise = over_layers - np.minimum.accumulate(over_layers, axis=1)
    return {
        "format_version": FORMAT_VERSION,
        **calibration.info,
        "monotone_timesteps": int((rise.max(axis=1) <= 0).sum()),
        "largest_rise": float(rise.max()),
        "layers": rows,
        "tables": {
            "timesteps": calibration.timesteps.tolist(),
            "mean_u": _table(mean_u),
            "mean_error": _table(mean_error),
            "ece": _table(before),
            "ece_recalibrated": _table(after),
            "rank_correlation": _table(rho),
            "mse": _table(mse),
        },
    }


def _table(values: NDArray[Any]) -> list[list[float | None]]:
    """For JSON: six digits, None for NaN."""
    return [[None if np.isnan(value) else float(f"{value:.6g}") for value in row] for row in values]
