"""The interface of a readout that runs no block.

To add a readout: subclass `Readout` in a file of its own and add a line to `registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.models import EarlyExitModel

LogSNR = float | NDArray[np.float64]  # of a prediction; (B,) where it differs by sample, NaN: no prediction


class ReadoutState(NamedTuple):
    """A batch at one denoising step."""

    x: Tensor  # (B,C,H,W)
    alpha_bar: float  # ᾱ of this step's timestep
    next_alpha_bar: float  # … and of the next one's; 1 after the last step
    log_snr: float  # log(√ᾱ / √(1−ᾱ))
    earlier: Sequence[tuple[LogSNR, Tensor]]  # log-SNR and ε of the earlier predictions, in order


class Readout(ABC):
    """Predicts ε at exit layer 0. `spec` is the text in a plan."""

    spec: str
    gflops: float = 0.0  # of one prediction for one image
    sha256: str | None = None  # of the file that it reads, if it reads one
    predicts: ClassVar[bool] = True  # whether later `output` readouts may reuse its prediction
    needs_earlier: int = 0  # number of earlier predictions that it reads

    def prepared(self, model: EarlyExitModel) -> Readout:
        """This readout with what it needs loaded, on the model's device. Raises UserError when it is missing."""
        return self

    @abstractmethod
    def epsilon(self, state: ReadoutState) -> Tensor:
        """(B,C,H,W) predicted noise."""

    def destination(self, state: ReadoutState) -> Tensor | None:
        """(B,C,H,W) x at the next timestep, of a readout that takes the step itself; None: the solver takes it."""
        return None
