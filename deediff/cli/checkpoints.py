"""`deediff calibrate`, `flops` and `deviations`: measurements of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from tyro.conf import Positional, arg

from deediff.analysis.drift import DRIFT_SAMPLES, DRIFT_STEPS, measure_drift
from deediff.bench.components import time_components
from deediff.calibration.checkpoint import CalibrationSettings, calibrate_checkpoint, training_batches
from deediff.calibration.deviations import check_edges, deviations
from deediff.calibration.drift import drift_file
from deediff.calibration.gaussian import GAUSSIAN_IMAGES, RANK, fit_gaussian, gaussian_file
from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.cli.command import Command, Count, PhotoCommand, Result, defaults_to, one_of
from deediff.cli.sampling import progress
from deediff.cost.table import component_table, exit_cost_table
from deediff.datasets import load_images, to_model_range
from deediff.devices import choose_device, device_name
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.models import PRESETS, EarlyExitModel, make_backbone
from deediff.models.uems import UEMS
from deediff.readouts.memory import memory_table
from deediff.sampling import sample
from deediff.settings import Device, SamplingSettings

CALIBRATION_NOTE = (
    "u and error = mean tanh|error| are means over the timesteps. ece and rank (Spearman, over images at a fixed "
    "timestep) are computed per timestep and then averaged. ece_recalibrated: u corrected by the isotonic maps. Both "
    "ece are computed on the images that the maps were not fitted on. mse: of the head, in the first, second and last "
    "third of the denoising; the last row is the full network. monotone_timesteps: number of timesteps where mean u "
    "never rises over the layers; largest_rise: the largest rise of mean u above its minimum over the layers before."
)
FLOPS_NOTE = (
    "All for one image and one step. GMACs are multiply-accumulates of linear maps, convolutions and matrix products; "
    "GFLOPs are 2 × GMACs. attention: the products q kᵀ and with v, which published tables often leave out. Norms (5 "
    "operations per element, as fvcore estimates) and other elementwise work (1 per element, 5 in a softmax) are in "
    "neither. Exit i runs i blocks, one head and the UEMs 0 … i; exit N is no early exit, with all UEMs evaluated. "
    "Parameters are those that a component uses; shared parameters are counted in each. memory: bytes that the "
    "readouts memory and deep store per sample, in float32 (twice with guidance), whatever the number of steps."
)
DEVIATIONS_NOTE = (
    "rms: root mean square of the difference from the first checkpoint's full network, per range of timesteps."
)


def model_argument(name: str, uem: str = "mlp") -> EarlyExitModel:
    """The model of a checkpoint, or of a preset with random weights and this UEM at every layer."""
    if name in PRESETS:
        return EarlyExitModel(make_backbone(PRESETS[name])).add_exits({"name": uem, "scope": "layer"})
    return load_checkpoint(Path(name))[0]


def schedule_argument(name: str) -> Schedule:
    """The noise schedule that the same model was trained with."""
    return Schedule() if name in PRESETS else Schedule(**load_checkpoint(Path(name))[1]["schedule"])


@dataclass(frozen=True, kw_only=True)
class Calibrate(PhotoCommand):
    """Compare u with the real error on held-out images, fit maps that correct u, fit a Gaussian, and measure drift.

    For excess, stopping, --recalibrated; the readouts gaussian, teleport; the policies drift, teacache.

    All are written beside the checkpoint. A model without exits gets the last two only.
    """

    checkpoint: Positional[Path]
    """A run folder or a .safetensors file."""
    images: Count = 256
    """Number of images of the test split, spread evenly over it."""
    bins: Count = 20
    """Number of timesteps, spread evenly."""
    dataset: Annotated[str | None, defaults_to("the training data set")] = None
    """cifar10, mnist or a folder of images."""
    data_root: Annotated[Path | None, defaults_to("a cache folder")] = None
    """Folder with the data set in torchvision's layout."""
    seed: int = 0
    """Seed of the noise."""
    only: Annotated[Literal["drift"] | None, defaults_to("everything", "drift")] = None
    """drift: only what the policies drift and teacache read, which needs no images."""
    gaussian: Literal["data", "samples", "none"] = "data"
    """Images of the Gaussian: of the training split, or drawn by the network in 20 steps of DPM-Solver++."""
    gaussian_images: Count = GAUSSIAN_IMAGES
    """Number of those images."""
    trajectories: Count = DRIFT_SAMPLES
    """Samples of the full trajectories on which drift and TeaCache's polynomial are measured."""
    rank: Count = RANK
    """Principal axes of the Gaussian; the rest of the variance is spread evenly."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """A row per layer with an exit, and the Gaussian."""
        checkpoint = find_checkpoint(self.checkpoint)
        if self.only == "drift":
            return self._drift(checkpoint)
        has_exits = read_json(checkpoint.with_suffix(".json")).get("uem") is not None
        if not has_exits and self.gaussian == "none":
            raise UserError(f"{checkpoint} has no exits to calibrate: leave --gaussian none out, or train its exits")
        result = self._exits() if has_exits else {}
        found = {**self._drift(checkpoint), **result}
        return found if self.gaussian == "none" else {**self._gaussian(checkpoint), **found}

    def _drift(self, checkpoint: Path) -> Result:
        """Measure and write what reused predictions lose on full trajectories."""
        model, info = load_checkpoint(checkpoint, choose_device(self.device))
        settings = SamplingSettings(steps=DRIFT_STEPS, num_samples=self.trajectories, seed=self.seed)
        with progress("trajectories") as on_step:
            table = measure_drift(model, Schedule(**info["schedule"]), settings, on_step)
        table.save(drift_file(checkpoint))
        thirds = np.array_split(table.gain, 3)
        return {"drift": str(drift_file(checkpoint)), "drift_gain_by_thirds": [float(third.mean()) for third in thirds]}

    def _gaussian(self, checkpoint: Path) -> Result:
        """Fit and write the Gaussian."""
        if self.gaussian == "data":
            batches = training_batches(checkpoint, self.gaussian_images, self.dataset, self.data_root, self.photos)
        else:
            batches = self._samples(checkpoint)
        source = {"source": self.gaussian, "checkpoint": checkpoint.name}
        fitted = fit_gaussian(batches, self.rank, source)
        fitted.save(gaussian_file(checkpoint))
        kept = float(fitted.variances.sum())
        total = kept + fitted.rest * (fitted.mean.numel() - len(fitted.variances))
        return {
            "gaussian": str(gaussian_file(checkpoint)),
            "gaussian_images": fitted.info["images"],
            "gaussian_axes": len(fitted.variances),
            "gaussian_variance_kept": kept / total,
        }

    def _samples(self, checkpoint: Path) -> Iterator[Tensor]:
        """The network's own images, (B,C,H,W) each."""
        model, info = load_checkpoint(checkpoint, choose_device(self.device))
        settings = SamplingSettings(
            solver="dpm-solver++", steps=20, clip_x0=True, num_samples=self.gaussian_images, seed=self.seed
        )
        with progress("draw images") as on_step:
            for step in sample(model, settings, schedule=Schedule(**info["schedule"])):
                on_step(step)
                if step.step == settings.steps - 1:
                    yield step.x.clamp(-1, 1).cpu()

    def _exits(self) -> Result:
        """Calibrate the exits."""
        with tqdm(unit="batch", desc="calibrate", disable=None, mininterval=0.5) as bar:

            def on_batch(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            settings = CalibrationSettings(self.images, self.bins, self.dataset, self.data_root, self.seed, self.photos)
            file, summary = calibrate_checkpoint(self.checkpoint, settings, self.device, on_batch)
        keys = ("dataset", "split", "label_source", "images", "seed", "monotone_timesteps", "largest_rise", "layers")
        return {
            "calibration": str(file),
            "timesteps": len(summary["tables"]["timesteps"]),
            **{key: summary[key] for key in keys},
            "note": CALIBRATION_NOTE,
        }


@dataclass(frozen=True, kw_only=True)
class Flops(Command):
    """Parameters, GMACs, GFLOPs and milliseconds of every component, and of the network up to every exit."""

    checkpoint: Annotated[Positional[str], arg(help=f"A run folder, a .safetensors file, or {', '.join(PRESETS)}.")]
    uem: Annotated[str, one_of(tuple(UEMS))] = "mlp"
    """The UEM of a preset."""
    batch_size: Count = 4
    """Images per batch, for the milliseconds."""
    repeats: Count = 3
    """Rounds; medians of the milliseconds are printed."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """A row per component and per exit: counted operations, and milliseconds measured on this machine."""
        model, device = model_argument(self.checkpoint, self.uem).eval(), choose_device(self.device)
        seconds = time_components(model, device, self.batch_size, self.repeats)
        components = component_table(model, seconds)
        names = ("gmacs_without_attention", "gmacs", "gflops_without_attention", "gflops")
        return {
            "backbone_parameters": components[-1]["parameters"],
            "parameters": sum(p.numel() for p in model.parameters()),
            **{f"full_{name}": components[-1][name] for name in names},
            "measured_on": f"{device_name(device)}, {torch.get_num_threads()} threads, batches of {self.batch_size}",
            "components": components,
            "exits": exit_cost_table(model, seconds),
            "memory": memory_table(model),
            "note": FLOPS_NOTE,
        }


@dataclass(frozen=True, kw_only=True)
class Deviations(PhotoCommand):
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
        data = load_images(name, shape[1], shape[0], self.data_root, train=False, photos=self.photos)
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
            "note": DEVIATIONS_NOTE,
        }
