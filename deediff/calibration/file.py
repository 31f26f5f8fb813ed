"""The calibration of a checkpoint: u beside the real errors on held-out images, and the maps that correct u.

It stands beside the weights it was measured on as `<step>.calibration.npz`, and is no use for others.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deediff.calibration.recalibrated import RecalibratedUncertainty
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.storage import write_atomically

FORMAT_VERSION = 1
Floats = NDArray[np.float32]
ARRAYS = ("timesteps", "position", "u", "error", "squared_error", "low", "high", "maps")


@dataclass(frozen=True, eq=False)
class Calibration:
    """M images, noised to T' timesteps each: what the UEMs said and how wrong each output head was.

    NaN where the model has no exit. Errors are those of what the network predicts: ε, x_0 or v.
    """

    timesteps: NDArray[np.int64]  # (T',) ascending
    position: Floats  # (T,) where each timestep lies among those, 0 … T'−1
    u: Floats  # (T', M, N)
    error: Floats  # (T', M, N) mean tanh|g_i − target|: what u should be (Eq. 6)
    squared_error: Floats  # (T', M, N+1) mean (g_i − target)²; the last one is the backbone's own
    low: Floats  # (T', N) range of u that a map was fitted on …
    high: Floats  # (T', N)
    maps: Floats  # (T', N, K) … and what u becomes at K knots spread evenly over it
    info: dict[str, Any] = field(default_factory=dict)  # checkpoint_sha256, dataset, split, images, seed, …
    sha256: str = ""  # of the file it was read from

    @property
    def layers(self) -> list[int]:
        """The layers that have an exit, ascending."""
        return [i for i in range(self.u.shape[2]) if not np.isnan(self.u[:, :, i]).any()]

    @property
    def fitted(self) -> NDArray[np.bool_]:
        """(M,) the half of the images that the maps were fitted on; the other half judges them."""
        return np.arange(self.u.shape[1]) % 2 == 0

    def at(self, values: Floats, timesteps: Sequence[int]) -> Floats:
        """`values` (T', …), interpolated to other timesteps: (S, …).

        An image has the same noise at every timestep, so what is interpolated is one image's path.
        """
        position = self.position[list(timesteps)]
        left = position.astype(np.int64).clip(max=len(self.timesteps) - 2)
        share = (position - left).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
        return values[left] * (1 - share) + values[left + 1] * share

    def recalibrated(self) -> Calibration:
        """The same with u as its maps correct it."""
        u = self.u.copy()
        for k, i in np.ndindex(len(self.timesteps), u.shape[2]):
            knots = np.linspace(self.low[k, i], self.high[k, i], self.maps.shape[2])
            u[k, :, i] = np.interp(u[k, :, i], knots, self.maps[k, i])
        return replace(self, u=u)

    def save(self, path: Path) -> None:
        """Write atomically."""
        buffer = io.BytesIO()
        info = json.dumps({"format_version": FORMAT_VERSION, **self.info})
        np.savez_compressed(buffer, info=np.array(info), **{name: getattr(self, name) for name in ARRAYS})
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Raises UserError when the file is missing or is not a calibration."""
        try:
            data = path.read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                info = json.loads(str(file["info"]))
                arrays = {name: file[name] for name in ARRAYS}
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: 'deediff calibrate CHECKPOINT' writes it") from None
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is not a readable calibration ({error}): run 'deediff calibrate' again") from None
        if info.get("format_version") != FORMAT_VERSION:
            raise UserError(
                f"{path}: format_version is {info.get('format_version')}, expected {FORMAT_VERSION}: "
                "run 'deediff calibrate' again"
            )
        return cls(**arrays, info=info, sha256=hashlib.sha256(data).hexdigest())


def positions(schedule: Schedule, timesteps: Sequence[int]) -> Floats:
    """Where each timestep lies among calibrated ones, 0 … T'−1: (T,), linear in the log noise-to-signal ratio.

    Errors fall steeply over the last few timesteps, and about linearly in this measure, not in t.
    """
    a = schedule.alphas_bar.numpy()
    ratio = np.log((1 - a) / a)  # ascending in t
    return np.interp(ratio, ratio[list(timesteps)], np.arange(len(timesteps))).astype(np.float32)


def calibration_file(checkpoint: Path) -> Path:
    """Where the calibration of a checkpoint file stands."""
    return checkpoint.with_suffix(".calibration.npz")


def calibration_of(model: EarlyExitModel, file: Path | None = None) -> Calibration:
    """The calibration of a loaded model, by default the one beside its checkpoint; of its u as the model gives it.

    Raises UserError when there is none, or it is of other weights.
    """
    if model.origin is None:
        raise UserError("this model was not read from a checkpoint, so it has no calibration: use deediff.load")
    checkpoint, sha256 = model.origin
    if file is None:
        file = calibration_file(checkpoint)
        if not file.exists():
            raise UserError(f"{checkpoint} has no calibration yet: run 'deediff calibrate {checkpoint}' first")
    calibration = Calibration.load(file)
    if calibration.info.get("checkpoint_sha256") != sha256:
        raise UserError(f"{file} is the calibration of other weights: run 'deediff calibrate {checkpoint}' again")
    return calibration.recalibrated() if isinstance(model.uem, RecalibratedUncertainty) else calibration


def recalibrate(model: EarlyExitModel) -> Calibration:
    """Let the maps beside the model's checkpoint correct its u, in place. Returns the calibration.

    Raises UserError when there is none, or the model has no UEMs.
    """
    if model.uem is None:
        raise UserError("this model has no UEMs, so there is no u to recalibrate: train its exits first")
    calibration = calibration_of(model)
    tables = [torch.from_numpy(getattr(calibration, name)) for name in ("position", "low", "high", "maps")]
    model.uem = RecalibratedUncertainty(model.uem, *tables).to(next(model.parameters()).device).eval()
    return calibration
