"""The images, timesteps, noise and labels of each step: a function of (seed, step) alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from deediff.datasets import Images
from deediff.devices import torchrun_process
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from trainer.config import Stage, TrainConfig


@dataclass(frozen=True)
class Processes:
    """The rank of this process, and the number of processes started by torchrun."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        """Initialise torch.distributed if torchrun started more than one process. Raises UserError if it cannot be."""
        if torchrun_process()[1] == 1:
            return cls()
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except ValueError as error:  # a variable of the environment is missing
            raise UserError(f"the processes cannot find each other ({error}): start with torchrun") from None
        return cls(dist.get_rank(), dist.get_world_size())


class Batch(NamedTuple):
    """One process's share of one step."""

    images: Tensor  # (B,C,H,W) uint8
    t: Tensor  # (B,) timesteps
    noise: Tensor  # (B,C,H,W)
    labels: Tensor | None  # (B,) classes, the null label where dropped; None: unconditional


def batch_at(
    config: TrainConfig,
    stage: Stage,
    data: Images,
    schedule: Schedule,
    step: int,  # counted over both stages
    procs: Processes,
    labels: Tensor | None = None,  # (len(data),) classes
) -> Batch:
    """This process's share of a step.

    Depends on (seed, step) alone, so that resumed trainings and any number of processes see the same data.
    Timesteps are stratified: one in each of B equal intervals of 0 … T−1.
    """
    size = stage.batch_size
    position = torch.arange(step * size, (step + 1) * size)
    index = torch.empty(size, dtype=torch.int64)
    for epoch in torch.unique(position // len(data)).tolist():
        order = _epoch_order(len(data), config.seed, epoch)
        inside = position // len(data) == epoch
        index[inside] = order[position[inside] % len(data)]
    rng = seeded_generator(config.seed, 1, step)
    t = ((torch.arange(size) + torch.rand(size, generator=rng)) / size * schedule.num_timesteps).long()
    t = t.clamp(max=schedule.num_timesteps - 1)[torch.randperm(size, generator=rng)]
    flips = torch.rand(size, generator=rng) < 0.5
    c = config.model
    noise = torch.randn(size, c.in_chans, c.img_size, c.img_size, generator=rng)
    mine = slice(procs.rank, None, procs.count)
    images = data[index[mine]]
    if config.flip:
        images = torch.where(flips[mine][:, None, None, None], images.flip(-1), images)
    y = None
    if labels is not None:
        dropped = torch.rand(size, generator=rng) < config.label_dropout
        y = torch.where(dropped, c.num_classes - 1, labels[index])[mine]
    return Batch(images, t[mine], noise[mine], y)


def seeded_generator(*key: int) -> torch.Generator:
    """A random generator that depends on the key alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


@lru_cache(maxsize=2)  # a batch may span two epochs
def _epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(size, generator=seeded_generator(seed, 0, epoch))
