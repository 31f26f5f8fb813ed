"""u and the real error of every exit on held-out images, per timestep and layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deediff.calibration.file import Calibration, positions
from deediff.calibration.maps import fit_maps, no_maps
from deediff.datasets import to_model_range
from deediff.devices import autocast, keep_freed_memory
from deediff.diffusion.losses import squared_error, uncertainty_target
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import epsilon_scale, training_target
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel


@dataclass(frozen=True)
class HeldOutImages:
    """Images to calibrate on."""

    images: Tensor  # (M,C,H,W) uint8
    numbers: Sequence[int] | None = None  # (M,) positions in the data set, which key their noise; default: 0 … M−1
    labels: Tensor | None = None  # (M,) for a class-conditional model

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, start: int, size: int) -> tuple[Tensor, Sequence[int], Tensor | None]:
        """Images (B,C,H,W), numbers (B,) and labels (B,) from `start` on."""
        part = slice(start, start + size)
        numbers = range(len(self)) if self.numbers is None else self.numbers
        return self.images[part], numbers[part], None if self.labels is None else self.labels[part]


def calibrate_model(
    model: EarlyExitModel,
    schedule: Schedule,
    held_out: HeldOutImages,
    timesteps: Sequence[int],  # ascending, at least two
    seed: int = 0,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,  # (evaluations done, total)
) -> Calibration:
    """Noise every image to every timestep, evaluate every exit, and fit the maps on every other image.

    The noise of an image depends on (seed, its number) only, so each image follows one trajectory through all
    timesteps. A class-conditional model is evaluated with the image's label, once: without guidance.
    Raises UserError when the model has no exits, labels are missing, or there are too few images.
    """
    _check(model, held_out, timesteps)
    keep_freed_memory()
    device, starts = next(model.parameters()).device, range(0, len(held_out), batch_size)
    found: list[list[tuple[Tensor, Tensor, Tensor]]] = []  # per batch and timestep: u, error, squared error
    for start in starts:
        images, numbers, labels = held_out.batch(start, batch_size)
        x0 = to_model_range(images).to(device)
        noise = sample_noise(seed, numbers, 0, model.image_shape).to(device)
        y = None if labels is None else labels.to(device)
        row = []
        for timestep in timesteps:
            row.append(_evaluate(model, schedule, x0, noise, timestep, y))
            if on_batch is not None:
                on_batch(len(found) * len(timesteps) + len(row), len(starts) * len(timesteps))
        found.append(row)
    u, error, squares = (
        np.stack([np.concatenate([row[k][j].numpy() for row in found]) for k in range(len(timesteps))])
        for j in range(3)
    )
    without_exit = [i for i in range(model.num_blocks) if not model.has_exit(i)]
    error[..., without_exit] = squares[..., without_exit] = np.nan  # their output heads are not trained
    info: dict[str, Any] = {"seed": seed, "images": len(held_out), "prediction": model.prediction}
    info["epsilon_scale"] = [epsilon_scale(model.prediction, float(schedule.alphas_bar[t])) for t in timesteps]
    maps = no_maps(len(timesteps), model.num_blocks)
    return fit_maps(Calibration(np.asarray(timesteps), positions(schedule, timesteps), u, error, squares, *maps, info))


def _check(model: EarlyExitModel, held_out: HeldOutImages, timesteps: Sequence[int]) -> None:
    if model.uem is None or model.heads is None:
        raise UserError("this model has no exits to calibrate: train them first (stage 'exits' of the trainer)")
    if model.backbone.num_classes and held_out.labels is None:
        raise UserError("this model is class-conditional: its calibration needs the images' labels")
    if len(held_out) < 4:
        raise UserError(f"{len(held_out)} images are too few for a calibration: give 4 or more")
    if len(timesteps) < 2:
        raise UserError(f"{len(timesteps)} timesteps are too few for a calibration: give 2 or more")


def _evaluate(
    model: EarlyExitModel, schedule: Schedule, x0: Tensor, noise: Tensor, timestep: int, y: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """u (B,N), the error that it was trained for (B,N) and the mean squared error (B,N+1) of a batch, on the CPU."""
    t = torch.full((len(x0),), timestep, device=x0.device)
    target = training_target(model.prediction, x0, noise, schedule.alpha_bar_at(t))
    with torch.inference_mode(), autocast(x0.device):
        predictions, u = model.all_exits(schedule.add_noise(x0, t, noise), t, y)
    predictions = predictions.float()
    learnt = predictions[-1] if model.exit_target == "full" else target
    error = uncertainty_target(predictions[:-1], learnt)
    return u.T.float().cpu(), error.T.cpu(), squared_error(predictions, target).T.cpu()
