"""Points on the network's own trajectories, in place of noised images: what exits learn from with `--data none`."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from deediff.sampling import sample
from trainer.batches import Processes, seeded_generator
from trainer.config import TrainConfig

FEWEST, MOST = 4, 13  # timesteps of a trajectory


class Points(NamedTuple):
    """One process's share of one step."""

    x: Tensor  # (B,C,H,W) noisy images
    t: Tensor  # (B,) timesteps
    labels: Tensor | None  # (B,) classes, the null label where dropped; None: unconditional


def points_at(config: TrainConfig, model: EarlyExitModel, schedule: Schedule, step: int, procs: Processes) -> Points:
    """This process's share of a step: a function of the seed, the step and the frozen backbone's weights.

    The full network denoises a few images by DPM-Solver++, on uniform timesteps of a random number and offset, so that
    every timestep occurs. Every process samples all of them, so that any number of processes see the same points.
    """
    size, total = config.exits.batch_size, schedule.num_timesteps
    rng = seeded_generator(config.seed, 2, step)
    count = int(torch.randint(FEWEST, MOST + 1, (), generator=rng))
    offset = float(torch.rand((), generator=rng))
    later = (int((j + offset) * total / count) for j in range(count))
    timesteps = sorted({total - 1, *later}, reverse=True)  # noise is at T−1
    images, seed = math.ceil(size / len(timesteps)), int(torch.randint(2**31, (), generator=rng))
    labels = _labels(config, model, images, rng)
    steps = sample(
        model,
        num_samples=images,
        batch_size=images,
        solver="dpm-solver++",
        timesteps=tuple(timesteps),
        clip_x0=True,
        seed=seed,
        schedule=schedule,
        classes=None if labels is None else labels.tolist(),
    )
    device = next(model.parameters()).device
    *visited, _ = [sample_noise(seed, range(images), 0, model.image_shape).to(device), *(step.x for step in steps)]
    chosen = torch.randperm(len(timesteps) * images, generator=rng)[:size][procs.rank :: procs.count]
    x = torch.stack(visited).flatten(0, 1)[chosen.to(device)]
    t = torch.tensor(timesteps).repeat_interleave(images)[chosen].to(device)
    return Points(x, t, None if labels is None else labels.repeat(len(timesteps))[chosen].to(device))


def _labels(config: TrainConfig, model: EarlyExitModel, images: int, rng: torch.Generator) -> Tensor | None:
    """(images,) classes at random; None for an unconditional model."""
    if not model.backbone.num_classes:
        return None
    classes = model.backbone.num_classes - model.null_label
    drawn = torch.randint(classes, (images,), generator=rng)
    return torch.where(torch.rand(images, generator=rng) < config.label_dropout, classes, drawn)
