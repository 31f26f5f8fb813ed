"""Which images, timesteps, noise and labels each step sees: a function of (seed, step) alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from deediff.datasets import Images
from deediff.diffusion.schedule import Schedule
from trainer.presets import Stage, TrainConfig


@dataclass(frozen=True)
class Processes:
    """This process among those torchrun started."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())


class Batch(NamedTuple):
    """What one process sees of one step."""

    images: Tensor  # (B,C,H,W) uint8
    t: Tensor  # (B,) timesteps
    noise: Tensor  # (B,C,H,W)
    labels: Tensor | None  # (B,) classes, the last label where it was dropped; None: unconditional


def batch_at(
    config: TrainConfig,
    stage: Stage,
    data: Images,
    schedule: Schedule,
    step: int,  # over both stages
    procs: Processes,
    labels: Tensor | None = None,  # (images of the data set,) their classes
) -> Batch:
    """This process's share of a step.

    A function of (seed, step) alone, so a resumed training and one on more processes see the same.
    Timesteps are stratified: one in each of B equal slices of 0 … T−1.
    """
    size = stage.batch_size
    position = torch.arange(step * size, (step + 1) * size)
    index = torch.empty(size, dtype=torch.int64)
    for epoch in torch.unique(position // len(data)).tolist():
        order = _epoch_order(len(data), config.seed, epoch)
        inside = position // len(data) == epoch
        index[inside] = order[position[inside] % len(data)]
    rng = torch.Generator().manual_seed(int(np.random.SeedSequence([config.seed, 1, step]).generate_state(1)[0]))
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


_orders: dict[tuple[int, int, int], Tensor] = {}


def _epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    key = (size, seed, epoch)
    if key not in _orders:
        if len(_orders) > 2:
            _orders.clear()
        state = int(np.random.SeedSequence([seed, 0, epoch]).generate_state(1)[0])
        _orders[key] = torch.randperm(size, generator=torch.Generator().manual_seed(state))
    return _orders[key]
