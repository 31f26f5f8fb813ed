"""What the sampler yields, and the networks that it evaluates."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.diffusion.prediction import epsilon_scale, to_epsilon
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.readouts import ReadoutState
from deediff.sampling.forward import Network
from deediff.sampling.request import Prediction


class NotFinite(UserError):
    """The network returned NaN or infinity."""


@dataclass(frozen=True)
class Step:
    """One denoising step of one batch."""

    step: int  # 0, 1, …
    timestep: int  # diffusion t
    samples: range  # sample numbers of this batch
    x: Tensor  # (B,C,H,W) after the step
    x0: Tensor  # (B,C,H,W) predicted clean image at this step
    exit_layer: Tensor  # (B,) int64
    uncertainty: Tensor  # (B,N) float32, NaN where not evaluated
    deviation: Tensor | None  # (B,N) float32
    signal: Tensor | None  # (B,) float32 that the policy compared, NaN where it was not asked; None: it has none
    since_full: NDArray[np.int64]  # (B,) steps since the sample's last full evaluation; 0: this step; −1: none yet
    done: int = 0  # steps of this job so far, over all batches …
    total: int = 0  # … and in all


class Networks:
    """The networks of a job, each prepared once."""

    def __init__(self) -> None:
        self._prepared: dict[int, Network] = {}

    def of(self, model: EarlyExitModel) -> Network:
        """The prepared network of a model that the job holds."""
        if id(model) not in self._prepared:
            self._prepared[id(model)] = Network(model)
        return self._prepared[id(model)]


def in_epsilon(p: Prediction, kind: str, state: ReadoutState) -> Prediction:
    """A network's prediction of ε, x_0 or v, and its deviations, as ε."""
    a = state.alpha_bar
    deviation = None if p.deviation is None else p.deviation * epsilon_scale(kind, a)
    return replace(p, output=to_epsilon(kind, p.output.to(state.x.dtype), state.x, a), deviation=deviation)
