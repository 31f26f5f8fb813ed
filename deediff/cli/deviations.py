"""`deediff deviations`: how far exits and other networks are from a full network."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from tqdm import tqdm
from tyro.conf import Positional

from deediff.calibration.deviations import check_edges, deviations
from deediff.checkpoints import load_checkpoint
from deediff.cli.command import Command, Count, Result, defaults_to
from deediff.datasets import load_images, to_model_range
from deediff.devices import choose_device, device_name
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.settings import Device

NOTE = "rms: root mean square of the difference from the first checkpoint's full network, per range of timesteps."


@dataclass(frozen=True, kw_only=True)
class Deviations(Command):
    """Distance of every exit of some checkpoints from the full network of the first one, on noised held-out images."""

    checkpoints: Positional[tuple[Path, ...]]
    """Run folders or .safetensors files; all are compared with the full network of the first."""
    from_timesteps: Annotated[tuple[int, ...], defaults_to("three ranges of equal length", "INT [INT ...]")] = ()
    """First timestep of each range; the last range ends at T-1."""
    images: Count = 1024
    """Number of images of the test split, spread evenly over it."""
    dataset: Annotated[str | None, defaults_to("the training data set")] = None
    """cifar10, mnist or a folder of images."""
    data_root: Annotated[Path | None, defaults_to("a cache folder")] = None
    """Folder with the data set in torchvision's layout."""
    seed: int = 0
    """Seed of the noise."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """A row per checkpoint and exit."""
        if not self.checkpoints:
            raise UserError("no checkpoint given: name a run folder or a .safetensors file")
        device = choose_device(self.device)
        loaded = [load_checkpoint(path, device) for path in self.checkpoints]
        models, info = [model for model, _ in loaded], loaded[0][1]
        schedule, shape = Schedule(**info["schedule"]), models[0].image_shape
        total = schedule.num_timesteps
        edges = self.from_timesteps or tuple(round(total * k / 3) for k in range(3))
        bounds = check_edges(edges, total)
        name = self.dataset or info.get("dataset")
        if name is None:
            raise UserError(f"{self.checkpoints[0]} does not record its training images: name some with --dataset")
        data = load_images(name, shape[1], shape[0], self.data_root, train=False)
        numbers = np.linspace(0, len(data) - 1, min(self.images, len(data))).round().astype(np.int64)
        images = to_model_range(data[torch.from_numpy(numbers)])
        with tqdm(unit="image", desc="deviations", total=len(images), disable=None, mininterval=0.5) as bar:
            found = deviations(
                models, schedule, images, edges, self.seed, on_batch=lambda done, _: bar.update(done - bar.n)
            )
        ranges = [f"rms t={first}..{end - 1}" for first, end in pairwise(bounds)]
        rows = [
            {"checkpoint": str(self.checkpoints[m]), "exit_layer": layer, **dict(zip(ranges, rms, strict=True))}
            for (m, layer), rms in found.items()
        ]
        return {
            "dataset": str(name),
            "images": len(images),
            "seed": self.seed,
            "measured_on": device_name(device),
            "exits": rows,
            "note": NOTE,
        }
