"""The distance of every exit, and of other networks, from the full network on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.devices import autocast, keep_freed_memory
from deediff.diffusion.losses import squared_error
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel

Deviations = dict[tuple[int, int], list[float]]  # (model, exit layer) → RMS per range of t


def check_edges(edges: Sequence[int], num_timesteps: int) -> list[int]:
    """First timesteps of the ranges, and T after them. Raises UserError unless they ascend within 0 … T−1."""
    bounds = [*edges, num_timesteps]
    if not edges or edges[0] < 0 or any(a >= b for a, b in pairwise(bounds)):
        raise UserError(f"the ranges start at {list(edges)}, expected ascending timesteps of 0 … {num_timesteps - 1}")
    return bounds


@torch.inference_mode()
def deviations(
    models: Sequence[EarlyExitModel],  # the first one's full network is what all are compared with
    schedule: Schedule,
    images: Tensor,  # (M,C,H,W) in [−1, 1]
    edges: Sequence[int],  # first timestep of each range; the last ends at T−1
    seed: int = 0,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,  # (images done, total)
) -> Deviations:
    """RMS of the difference of predictions, over images, pixels and channels, for every exit of every model.

    Image k is noised once for each range, to the timestep at (k + ½)/M of it. Raises UserError for ranges that do not
    ascend, and for models that cannot be compared.
    """
    bounds = check_edges(edges, schedule.num_timesteps)
    _check(models)
    keep_freed_memory()
    device, squares = next(models[0].parameters()).device, dict[tuple[int, int], NDArray[np.float64]]()
    for start in range(0, len(images), batch_size):
        x0 = images[start : start + batch_size].to(device)
        noise = sample_noise(seed, range(start, start + len(x0)), 0, models[0].image_shape).to(device)
        share = (torch.arange(start, start + len(x0), device=device) + 0.5) / len(images)
        for k, (first, end) in enumerate(pairwise(bounds)):
            t = (first + share * (end - first)).long()
            x = schedule.add_noise(x0, t, noise)
            with autocast(device):
                found = {(m, i): out.float() for m, model in enumerate(models) for i, out in _exits(model, x, t)}
            for exit_, output in found.items():
                error = squared_error(output, found[0, models[0].num_blocks])
                squares.setdefault(exit_, np.zeros(len(edges)))[k] += float(error.sum())
        if on_batch is not None:
            on_batch(start + len(x0), len(images))
    return {exit_: np.sqrt(total / len(images)).tolist() for exit_, total in squares.items()}


def _check(models: Sequence[EarlyExitModel]) -> None:
    first = models[0]
    for model in models:
        if model.backbone.num_classes:
            raise UserError("deviations are measured for unconditional networks only, and this one has classes")
        for what, theirs, ours in (
            ("images of shape", model.image_shape, first.image_shape),
            ("the prediction", model.prediction, first.prediction),
        ):
            if theirs != ours:
                raise UserError(f"a network was trained on {what} {theirs}, the first one on {ours}: leave it out")


def _exits(model: EarlyExitModel, x: Tensor, t: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Exit layer and prediction (B,C,H,W) of every exit that the model has."""
    for layer, state in enumerate(model.backbone.states(x, t)):
        if model.has_exit(layer):
            yield layer, model.read_out(layer, state, t)
