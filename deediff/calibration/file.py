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
from deediff.errors import UserError

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
        found = cls(**arrays, info=info, sha256=sha256)
        if (strange := found._strange()) is not None:
            raise UserError(f"{path} is not a readable calibration ({strange}): run 'deediff calibrate' again")
        return found

    def _strange(self) -> str | None:
        """Which array does not fit the others; None when all do."""
        if self.u.ndim != 3 or self.maps.ndim != 3 or self.timesteps.ndim != 1 or self.position.ndim != 1:
            return "its arrays have other dimensions"
        rows, images, layers = self.u.shape
        expected = {
            "timesteps": (rows,),
            "error": (rows, images, layers),
            "squared_error": (rows, images, layers + 1),
            "low": (rows, layers),
            "high": (rows, layers),
            "maps": (rows, layers, self.maps.shape[2]),
        }
        for name, shape in expected.items():
            if (found := getattr(self, name).shape) != shape:
                return f"{name} has the shape {found}, expected {shape}"
        ascending = np.all(np.diff(self.timesteps) > 0) and rows >= 2
        if not ascending or self.timesteps[0] < 0 or self.timesteps[-1] >= len(self.position):
            return f"timesteps are not ascending numbers of 0 … {len(self.position) - 1}"
        if not np.all((self.position >= 0) & (self.position <= rows - 1)):
            return f"position is not within 0 … {rows - 1}"
        return None


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
