"""Early exit for diffusion models: train, sample with real exits, analyse what was recorded.

`__all__` is the public API. Each name is imported on first access: reading a trace does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deediff.calibration.recalibrated import recalibrate
    from deediff.diffusion.schedule import Schedule
    from deediff.diffusion.solvers import Solver, make_solver
    from deediff.errors import UserError
    from deediff.explorer import explore
    from deediff.models import UEM, Backbone, EarlyExitModel, make_backbone
    from deediff.plans import Plan, PlanStep
    from deediff.policies import ExitPolicy, make_policy
    from deediff.readouts import Readout
    from deediff.sampling import Step, sample
    from deediff.settings import SamplingSettings
    from deediff.traces.reader import Trace, read_trace

__version__ = "0.1.0"
__all__ = [
    "UEM",
    "Backbone",
    "EarlyExitModel",
    "ExitPolicy",
    "Plan",
    "PlanStep",
    "Readout",
    "SamplingSettings",
    "Schedule",
    "Solver",
    "Step",
    "Trace",
    "UserError",
    "explore",
    "load",
    "make_backbone",
    "make_policy",
    "make_solver",
    "read_trace",
    "recalibrate",
    "sample",
]

_MODULES = {  # the module that defines each name
    "UEM": "deediff.models",
    "Backbone": "deediff.models",
    "EarlyExitModel": "deediff.models",
    "ExitPolicy": "deediff.policies",
    "Plan": "deediff.plans",
    "PlanStep": "deediff.plans",
    "Readout": "deediff.readouts",
    "SamplingSettings": "deediff.settings",
    "Schedule": "deediff.diffusion.schedule",
    "Solver": "deediff.diffusion.solvers",
    "Step": "deediff.sampling",
    "Trace": "deediff.traces.reader",
    "UserError": "deediff.errors",
    "explore": "deediff.explorer",
    "make_backbone": "deediff.models",
    "make_policy": "deediff.policies",
    "make_solver": "deediff.diffusion.solvers",
    "read_trace": "deediff.traces.reader",
    "recalibrate": "deediff.calibration.recalibrated",
    "sample": "deediff.sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(path: str | Path, device: str = "cpu", recalibrated: bool = False) -> EarlyExitModel:
    """The model of a checkpoint, in eval mode. `path` is a checkpoint file, or a run folder: its newest checkpoint.

    With `recalibrated`, u is corrected by the calibration beside the checkpoint (`deediff calibrate`).
    Raises UserError when there is no checkpoint or it is corrupt.
    """
    from deediff.calibration.recalibrated import recalibrate
    from deediff.checkpoints import load_checkpoint

    model = load_checkpoint(Path(path), device)[0]
    if recalibrated:
        recalibrate(model)
    return model
