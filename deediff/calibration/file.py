"""The calibration of a checkpoint: u and the measured errors on held-out images, and the maps that correct u.

It is stored beside the weights that it was measured on as `<step>.calibration.npz`, and is valid for those only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.calibration.npz import read_npz, write_npz
from deediff.diffusion.schedule import Schedule

Floats = NDArray[np.float32]
ARRAYS = ("timesteps", "position", "u", "error", "squared_error", "low", "high", "maps")


@dataclass(frozen=True, eq=False)
class Calibration:
    """M images, noised to T' timesteps each: u of every UEM and the error of every output head.

    NaN at layers without an exit. Errors are those of the network's prediction: ε, x_0 or v.
    """

    timesteps: NDArray[np.int64]  # (T',) ascending
    position: Floats  # (T,) position of each timestep among those, 0 … T'−1
    u: Floats  # (T', M, N)
    error: Floats  # (T', M, N) mean tanh|g_i − target|, the target of u (Eq. 6)
    squared_error: Floats  # (T', M, N+1) mean (g_i − target)²; the last is the backbone's output
    low: Floats  # (T', N) range of u that each map was fitted on
    high: Floats  # (T', N)
    maps: Floats  # (T', N, K) corrected u at K knots spread evenly over that range
    info: dict[str, Any] = field(default_factory=dict)  # checkpoint_sha256, dataset, split, images, seed, …
    sha256: str = ""  # of the file it was read from

    @property
    def layers(self) -> list[int]:
        """The layers that have an exit, ascending."""
        return [i for i in range(self.u.shape[2]) if not np.isnan(self.u[:, :, i]).any()]

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """(M,) bool: the half of the images that the maps are fitted on; the other half is for evaluation."""
        return np.arange(self.u.shape[1]) % 2 == 0

    def at(self, values: Floats, timesteps: Sequence[int]) -> Floats:
        """`values` (T', …), interpolated to other timesteps: (S, …).

        An image has the same noise at every timestep, so the interpolation follows one trajectory per image.
        """
        position = self.position[list(timesteps)]
        left = position.astype(np.int64).clip(max=len(self.timesteps) - 2)
        share = (position - left).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
        return values[left] * (1 - share) + values[left + 1] * share

    def recalibrated(self) -> Calibration:
        """This calibration with u corrected by its maps."""
        u = self.u.copy()
        for k, i in np.ndindex(len(self.timesteps), u.shape[2]):
            knots = np.linspace(self.low[k, i], self.high[k, i], self.maps.shape[2])
            u[k, :, i] = np.interp(u[k, :, i], knots, self.maps[k, i])
        return replace(self, u=u)

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_npz(path, self.info, {name: getattr(self, name) for name in ARRAYS})

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Raises UserError when the file is missing or is not a readable calibration."""
        info, arrays, sha256 = read_npz(path, ARRAYS, "calibration")
        return cls(**arrays, info=info, sha256=sha256)


def positions(schedule: Schedule, timesteps: Sequence[int]) -> Floats:
    """Position of each timestep among the calibrated ones, 0 … T'−1: (T,), linear in the log noise-to-signal ratio.

    Errors are about linear in this ratio; in t they fall steeply over the last few timesteps.
    """
    a = schedule.alphas_bar.numpy()
    ratio = np.log((1 - a) / a)  # ascending in t
    return np.interp(ratio, ratio[list(timesteps)], np.arange(len(timesteps))).astype(np.float32)


def calibration_file(checkpoint: Path) -> Path:
    """The calibration file of a checkpoint file."""
    return checkpoint.with_suffix(".calibration.npz")
