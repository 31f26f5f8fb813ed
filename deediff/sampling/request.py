"""Arguments and result of one evaluation of the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deediff.policies.base import ExitPolicy
from deediff.sampling.condition import Condition
from deediff.sampling.past import Recall
from deediff.settings import Record


@dataclass(frozen=True)
class Request:
    """Arguments of one evaluation, beside the images: B samples at one denoising step."""

    policy: ExitPolicy
    step: int
    timestep: int  # diffusion t
    samples: NDArray[np.int64]  # (B,) sample numbers
    record: Record = "exit"  # "full": no sample is dropped, so that every UEM is evaluated
    deviations: bool = False  # every head is evaluated too, and compared with the full network
    condition: Condition | None = None
    recall: Recall | None = None  # the samples' past; None: nothing is remembered

    def split(self, size: int) -> list[Request]:
        """Requests of consecutive groups of `size` samples."""
        samples = np.split(self.samples, range(size, len(self.samples), size))
        conditions = [None] * len(samples) if self.condition is None else self.condition.split(size)
        parts = [replace(self, samples=s, condition=c) for s, c in zip(samples, conditions, strict=True)]
        if self.recall is not None:
            parts = [replace(part, recall=self.recall.part(k * size)) for k, part in enumerate(parts)]
        return parts


@dataclass(frozen=True)
class Prediction:
    """Result of one evaluation, per sample."""

    output: Tensor  # (B,C,H,W) prediction of ε, x_0 or v
    exit_layer: Tensor  # (B,) int64 on the CPU, 0 … N
    uncertainty: Tensor  # (B,N) float32 on the CPU; NaN where no UEM was evaluated
    deviation: Tensor | None  # (B,N) RMS(g_i − full output), if requested
    signal: Tensor | None = None  # (B,) float32 on the CPU, what the policy compared; NaN where it was not asked

    @property
    def exited(self) -> NDArray[np.bool_]:
        """(B,) the samples that exited before the last block."""
        return self.exit_layer.numpy() < self.uncertainty.shape[1]

    def padded(self, num_blocks: int) -> Prediction:
        """The prediction with u of a deeper network's shape, (B,num_blocks): NaN at the layers that this one lacks."""
        missing = num_blocks - self.uncertainty.shape[1]
        return replace(self, uncertainty=F.pad(self.uncertainty, (0, missing), value=torch.nan))

    @staticmethod
    def concatenate(parts: list[Prediction]) -> Prediction:
        """Predictions of consecutive groups of samples as one."""
        deviation = [p.deviation for p in parts if p.deviation is not None]
        return Prediction(
            torch.cat([p.output for p in parts]),
            torch.cat([p.exit_layer for p in parts]),
            torch.cat([p.uncertainty for p in parts]),
            torch.cat(deviation) if deviation else None,
            torch.cat(signals) if (signals := [p.signal for p in parts if p.signal is not None]) else None,
        )
