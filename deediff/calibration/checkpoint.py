"""Calibration of a checkpoint file, for `deediff calibrate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.calibration.file import calibration_file
from deediff.calibration.measure import HeldOutImages, calibrate_model
from deediff.calibration.summary import summarise
from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.datasets import NAMED, Images, load_images, load_labels, to_model_range
from deediff.devices import choose_device
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.models import EarlyExitModel
from deediff.photos.options import AS_SHOWN, PhotoOptions


@dataclass(frozen=True)
class CalibrationSettings:
    """Images, timesteps and noise on which u is compared with the real error."""

    images: int = 256  # of the test split, spread evenly over it
    bins: int = 20  # timesteps, spread evenly over 0 … T−1
    dataset: str | None = None  # default: the data set of the run
    data_root: Path | None = None
    seed: int = 0
    photos: PhotoOptions = AS_SHOWN  # how a folder of images is read


def calibrate_checkpoint(
    checkpoint: Path,  # a run folder or a .safetensors file
    settings: CalibrationSettings,
    device: str = "auto",
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Calibrate a checkpoint on images of the test split, and write the calibration and its summary beside it.

    A folder of images has no test split: all its images may have been trained on, which `split` records.
    A class-conditional model gets the images' labels or, if the images have none, the label for "no class".
    Returns the calibration's file and the summary. Raises UserError when the model or the data cannot be loaded.
    """
    checkpoint = find_checkpoint(checkpoint)
    model, info = load_checkpoint(checkpoint, choose_device(device))
    images, bins, data_root = settings.images, settings.bins, settings.data_root
    name = settings.dataset or info.get("dataset") or _dataset_of_run(checkpoint)
    data = load_images(name, model.image_shape[1], model.image_shape[0], data_root, train=False, photos=settings.photos)
    if images < 4 or bins < 2:
        raise UserError(f"a calibration on {images} images and {bins} bins is too small: give at least 4 and 2")
    numbers = np.linspace(0, len(data) - 1, min(images, len(data))).round().astype(np.int64)
    schedule = Schedule(**info["schedule"])
    timesteps = np.unique(np.linspace(0, schedule.num_timesteps - 1, bins).round().astype(np.int64)).tolist()
    labels, label_source = _labels(model, name, data_root, data, numbers)
    held_out = HeldOutImages(data[torch.from_numpy(numbers)], numbers.tolist(), labels)
    calibration = calibrate_model(model, schedule, held_out, timesteps, settings.seed, on_batch=on_batch)
    source = {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": info["sha256"],
        "dataset": str(name),
        "split": "test" if name in NAMED else "all (a folder has no test split)",
        "label_source": label_source,
    }
    calibration = replace(calibration, info={**calibration.info, **source})
    file, summary = calibration_file(checkpoint), summarise(calibration)
    calibration.save(file)
    write_json(file.with_suffix(".json"), summary)
    return file, summary


def training_batches(
    checkpoint: Path,  # a .safetensors file
    images: int,
    dataset: str | None = None,  # default: the data set of the run
    data_root: Path | None = None,
    photos: PhotoOptions = AS_SHOWN,  # how a folder of images is read
    batch_size: int = 500,
) -> Iterator[Tensor]:
    """Images of the training split, spread evenly over it, in batches (B,C,H,W) in [−1, 1].

    Raises UserError when the data cannot be loaded.
    """
    info = read_json(checkpoint.with_suffix(".json"))
    name = dataset or info.get("dataset") or _dataset_of_run(checkpoint)
    net = info["backbone"]
    data = load_images(name, net["img_size"], net["in_chans"], data_root, photos=photos)
    numbers = torch.linspace(0, len(data) - 1, min(images, len(data)), dtype=torch.float64).round().long()
    return (to_model_range(data[part]) for part in numbers.split(batch_size))


def _labels(
    model: EarlyExitModel, dataset: str, data_root: Path | None, images: Images, numbers: NDArray[np.int64]
) -> tuple[Tensor | None, str | None]:
    """Labels (M,) of these images and their source; None for an unconditional model.

    Raises UserError when the data set's classes are not the model's.
    """
    if not model.backbone.num_classes:
        return None, None
    classes = model.backbone.num_classes - model.null_label
    try:
        labels = load_labels(dataset, data_root, train=False, images=images)
    except UserError:
        if not model.null_label:
            raise
        return torch.full((len(numbers),), classes), "none: the images have no classes"
    if (found := int(labels.max()) + 1) != classes:
        raise UserError(f"{dataset} has {found} classes and the model {classes}: name its own data with --dataset")
    return labels[torch.from_numpy(numbers)], "the images' own"


def _dataset_of_run(checkpoint: Path) -> str:
    try:
        return str(read_json(checkpoint.parent.parent / "run.json")["dataset"])
    except (UserError, KeyError):
        raise UserError(
            f"{checkpoint} does not record its training images: name held-out ones with --dataset"
        ) from None
