"""Early exit for diffusion models: train, sample with real exits, look at what happened."""

from __future__ import annotations

from pathlib import Path

from deediff.calibrations import recalibrate
from deediff.checkpoints import load_checkpoint
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.sampling import Step, sample
from deediff.traces.reader import Trace, read_trace

__all__ = ["EarlyExitModel", "Step", "Trace", "UserError", "load", "read_trace", "sample"]
__version__ = "0.1.0"


def load(path: str | Path, device: str = "cpu", recalibrated: bool = False) -> EarlyExitModel:
    """A run folder (its newest checkpoint) or one checkpoint file → the model, in eval mode.

    `recalibrated`: its u is corrected by the calibration beside the checkpoint (`deediff calibrate`).
    Raises UserError when there is none or it is corrupt.
    """
    model = load_checkpoint(Path(path), device)[0]
    if recalibrated:
        recalibrate(model)
    return model
