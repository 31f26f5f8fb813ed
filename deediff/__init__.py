"""Early exit for diffusion models: train, sample with real exits, look at what happened."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deediff.calibration.file import recalibrate
    from deediff.errors import UserError
    from deediff.models import EarlyExitModel
    from deediff.sampling import Step, sample
    from deediff.traces.reader import Trace, read_trace

__all__ = ["EarlyExitModel", "Step", "Trace", "UserError", "load", "read_trace", "recalibrate", "sample"]
__version__ = "0.1.0"

# Found when they are asked for: reading a trace need not wait for torch.
_HOMES = {
    "EarlyExitModel": "deediff.models",
    "Step": "deediff.sampling",
    "Trace": "deediff.traces.reader",
    "UserError": "deediff.errors",
    "read_trace": "deediff.traces.reader",
    "recalibrate": "deediff.calibration.file",
    "sample": "deediff.sampling",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    try:
        return import_module(f"{__name__}.{name}")  # a module of this package
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def load(path: str | Path, device: str = "cpu", recalibrated: bool = False) -> EarlyExitModel:
    """A run folder (its newest checkpoint) or one checkpoint file → the model, in eval mode.

    `recalibrated`: its u is corrected by the calibration beside the checkpoint (`deediff calibrate`).
    Raises UserError when there is none or it is corrupt.
    """
    from deediff.calibration.file import recalibrate
    from deediff.checkpoints import load_checkpoint

    model = load_checkpoint(Path(path), device)[0]
    if recalibrated:
        recalibrate(model)
    return model
