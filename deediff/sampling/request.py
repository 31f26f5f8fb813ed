"""What one evaluation of the network is asked for, beside the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.policies.base import ExitPolicy

Record = Literal["exit", "full"]


@dataclass(frozen=True)
class Condition:
    """What a class-conditional model is asked for."""

    labels: Tensor  # (B,)
    guidance: float | None = None  # classifier-free guidance scale; None: without
    null_label: int = 0  # the label that means "no class"

    def rows(self) -> Tensor:
        """Labels of the rows of the network: (B,), or (2·B,) with guidance, sample and null label in turn."""
        if self.guidance is None:
            return self.labels
        return torch.stack([self.labels, torch.full_like(self.labels, self.null_label)], dim=1).flatten()

    def split(self, size: int) -> list[Condition]:
        """Of consecutive groups of samples."""
        return [Condition(part, self.guidance, self.null_label) for part in self.labels.split(size)]


@dataclass(frozen=True)
class Request:
    """Of a batch of B samples at one denoising step."""

    policy: ExitPolicy
    step: int
    timestep: int  # diffusion t
    samples: NDArray[np.int64]  # (B,) sample numbers
    record: Record = "exit"  # "full": every UEM is asked
    deviations: bool = False  # every head as well: how far is its answer from the network's?
    condition: Condition | None = None

    def split(self, size: int) -> list[Request]:
        """Of consecutive groups of samples."""
        samples = np.split(self.samples, range(size, len(self.samples), size))
        conditions = [None] * len(samples) if self.condition is None else self.condition.split(size)
        return [replace(self, samples=s, condition=c) for s, c in zip(samples, conditions, strict=True)]
