"""What a reused prediction loses along a trajectory: g(t) for the policy drift, and TeaCache's polynomial."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.calibration.npz import read_npz, write_npz
from deediff.errors import UserError
from deediff.models import EarlyExitModel

DEGREE = 4  # of TeaCache's polynomial (Liu et al. 2024, arXiv 2411.19108)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class DriftTable:
    """Measured on full trajectories of M samples and S steps."""

    timesteps: NDArray[np.int64]  # (S,) descending
    gain: Floats  # (S,) g(t): RMS change of ε at this step / the change foreseen from the two predictions before it
    polynomial: (
        Floats  # (DEGREE + 1,) relative change of the embedded input → relative change of ε; highest power first
    )
    info: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""  # of the file it was read from

    def gains(self, timesteps: list[int]) -> Floats:
        """g at other timesteps, linear between those measured."""
        return np.interp(timesteps, self.timesteps[::-1], self.gain[::-1])

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        write_npz(path, self.info, {"timesteps": self.timesteps, "gain": self.gain, "polynomial": self.polynomial})

    @classmethod
    def load(cls, path: Path) -> DriftTable:
        """Raises UserError when the file is missing or is not readable."""
        info, arrays, sha256 = read_npz(path, ("timesteps", "gain", "polynomial"), "table of drift")
        timesteps, gain, polynomial = (arrays[name] for name in ("timesteps", "gain", "polynomial"))
        if timesteps.shape != gain.shape or polynomial.shape != (DEGREE + 1,) or not len(gain):
            raise UserError(f"{path} is not a readable table of drift (its shapes): run 'deediff calibrate' again")
        return cls(timesteps, gain, polynomial, info, sha256)


def foreseen(change: Any, before: Any, ahead: Any) -> Any:
    """The change of ε over `ahead` in log-SNR, if it goes on as over `before`, where it was `change`."""
    return change * ahead / before


def fit_drift(
    timesteps: list[int],  # (S,)
    log_snr: Floats,  # (S,)
    change: Floats,  # (S−1, M) RMS of ε_s − ε_{s−1}, for s = 1 … S−1
    relative_change: Floats,  # (S−1, M) mean|ε_s − ε_{s−1}| / mean|ε_{s−1}|
    relative_input: Floats,  # (S−1, M) the same of the embedded input
    info: dict[str, Any] | None = None,
) -> DriftTable:
    """Least squares: g(t) per step, the polynomial over all. Raises UserError for fewer than three steps."""
    if len(timesteps) < 3:
        raise UserError(f"drift is measured on three steps or more, there are {len(timesteps)}")
    steps = np.diff(log_snr)  # (S−1,) log-SNR from step s−1 to s
    expected = foreseen(change[:-1], steps[:-1, None], steps[1:, None])  # (S−2, M)
    gain = (expected * change[1:]).sum(axis=1) / np.square(expected).sum(axis=1).clip(1e-30)
    polynomial = np.polyfit(relative_input.ravel(), relative_change.ravel(), DEGREE)
    return DriftTable(np.asarray(timesteps), np.concatenate([gain[:1], gain[:1], gain]), polynomial, info or {})


def drift_file(checkpoint: Path) -> Path:
    """The table of a checkpoint file."""
    return checkpoint.with_suffix(".drift.npz")


def drift_of(model: EarlyExitModel, policy: str) -> DriftTable:
    """The table beside the checkpoint of a model. Raises UserError, naming the policy, when there is none."""
    if model.origin is None:
        raise UserError(f"policy {policy} reads a file beside the checkpoint, and this model has none")
    file = drift_file(model.origin[0])
    if not file.exists():
        raise UserError(
            f"policy {policy} needs what a reused prediction loses in {file}, which is missing: 'deediff calibrate "
            "CHECKPOINT' measures it"
        )
    return DriftTable.load(file)
