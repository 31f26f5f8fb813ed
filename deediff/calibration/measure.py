"""Is u what it says? The UEMs against the real error on held-out images, per layer and timestep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.calibration.file import FORMAT_VERSION, Calibration, Floats, calibration_file, positions
from deediff.calibration.isotonic import fit_map
from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.datasets import NAMED, load_images, load_labels, to_model_range
from deediff.devices import autocast, choose_device, keep_freed_memory
from deediff.diffusion.losses import squared_error, uncertainty_target
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import epsilon_scale, training_target
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.models import EarlyExitModel

KNOTS = 64  # of each map
ECE_BINS = 10
Array = NDArray[np.float64]


def calibrate(
    model: EarlyExitModel,
    schedule: Schedule,
    images: Tensor,  # (M,C,H,W) uint8
    timesteps: Sequence[int],  # ascending, at least two
    numbers: Sequence[int] | None = None,  # (M,) of the images in their data set: the key of their noise
    labels: Tensor | None = None,  # (M,) of the images, for a class-conditional model
    seed: int = 0,
    batch_size: int = 32,
    on_batch: Callable[[int, int], None] | None = None,  # (evaluations done, in all)
    **info: Any,  # for the record
) -> Calibration:
    """Noise every image to every timestep, ask every exit, and fit the maps on every other image.

    The noise of an image depends on (seed, its number) only, so each image takes one path through all
    timesteps. A class-conditional model is told each image's class, and asked once: without guidance.
    Raises UserError when the model has no exits, labels are missing, or there are too few images.
    """
    if model.uem is None or model.heads is None:
        raise UserError("this model has no exits to calibrate: train them first (stage 'exits' of the trainer)")
    if model.backbone.num_classes and labels is None:
        raise UserError("this model is class-conditional: its calibration needs the images' labels")
    if len(images) < 4:
        raise UserError(f"{len(images)} images are too few for a calibration: give 4 or more")
    if len(timesteps) < 2:
        raise UserError(f"{len(timesteps)} timesteps are too few for a calibration: give 2 or more")
    keep_freed_memory()
    numbers = range(len(images)) if numbers is None else numbers
    device, parts = next(model.parameters()).device, range(0, len(images), batch_size)
    found: list[list[tuple[Tensor, Tensor, Tensor]]] = []  # batch, timestep: u, error, squared error
    for start in parts:
        x0 = to_model_range(images[start : start + batch_size]).to(device)
        noise = sample_noise(seed, numbers[start : start + batch_size], 0, model.image_shape).to(device)
        y = None if labels is None else labels[start : start + batch_size].to(device)
        row = []
        for timestep in timesteps:
            row.append(_ask(model, schedule, x0, noise, timestep, y))
            if on_batch is not None:
                on_batch(len(found) * len(timesteps) + len(row), len(parts) * len(timesteps))
        found.append(row)
    u, error, squares = (
        np.stack([np.concatenate([row[k][j].numpy() for row in found]) for k in range(len(timesteps))])
        for j in range(3)
    )
    without = [i for i in range(model.num_blocks) if not model.has_exit(i)]
    error[..., without] = squares[..., without] = np.nan  # an output head that nobody trained
    info = {"seed": seed, "images": len(images), "prediction": model.prediction, **info}
    info["epsilon_scale"] = [epsilon_scale(model.prediction, float(schedule.alphas_bar[t])) for t in timesteps]
    maps = _no_maps(len(timesteps), model.num_blocks)
    plain = Calibration(np.asarray(timesteps), positions(schedule, timesteps), u, error, squares, *maps, info)
    low, high, values = fit_maps(plain)
    return replace(plain, low=low, high=high, maps=values)


def _ask(
    model: EarlyExitModel, schedule: Schedule, x0: Tensor, noise: Tensor, timestep: int, y: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """u (B,N), mean tanh|error| (B,N) and mean squared error (B,N+1) of one batch at one timestep, on the CPU."""
    t = torch.full((len(x0),), timestep, device=x0.device)
    target = training_target(model.prediction, x0, noise, schedule.alpha_bar_at(t))
    with torch.inference_mode(), autocast(x0.device):
        predictions, u = model.all_exits(schedule.add_noise(x0, t, noise), t, y)
    predictions = predictions.float()
    error = uncertainty_target(predictions[:-1], target)
    return u.T.float().cpu(), error.T.cpu(), squared_error(predictions, target).T.cpu()


def _no_maps(timesteps: int, layers: int) -> tuple[Floats, Floats, Floats]:
    cell = np.zeros((timesteps, layers), np.float32)
    return cell, cell.copy(), np.zeros((timesteps, layers, KNOTS), np.float32)


def fit_maps(calibration: Calibration) -> tuple[Floats, Floats, Floats]:
    """The isotonic map of each timestep and layer, from the `fitted` half of the images: low, high, maps."""
    low, high, maps = _no_maps(len(calibration.timesteps), calibration.u.shape[2])
    mine = calibration.fitted
    for k in range(len(calibration.timesteps)):
        for i in calibration.layers:
            predicted, actual = calibration.u[k, mine, i], calibration.error[k, mine, i]
            low[k, i], high[k, i], maps[k, i] = fit_map(predicted.astype(np.float64), actual, KNOTS)
    return low, high, maps


def expected_calibration_error(u: Floats, error: Floats, bins: int = ECE_BINS) -> Array:
    """ECE = Σ_b n_b/M · |mean u − mean error| of bin b: (T', M, N) twice → (T', N).

    The bins hold equally many images each, for u covers a small part of [0, 1] at a given layer and
    timestep: bins of equal width would all be one.
    """
    order = np.argsort(u, axis=1)
    gap = np.take_along_axis(u.astype(np.float64) - error, order, axis=1)
    return sum(np.abs(part.sum(axis=1)) for part in np.array_split(gap, bins, axis=1)) / u.shape[1]  # type: ignore[return-value]


def rank_correlation(u: Floats, error: Floats) -> Array:
    """Spearman's ρ across images, each timestep and layer for itself: (T', M, N) twice → (T', N).

    NaN where one of the two is the same for all images.
    """

    def ranks(values: Floats) -> Array:
        flat = pd.DataFrame(values.transpose(1, 0, 2).reshape(values.shape[1], -1)).rank().to_numpy()
        return flat - flat.mean(axis=0)

    a, b = ranks(u), ranks(error)
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return rho.reshape(u.shape[0], u.shape[2])


def reliability(calibration: Calibration, bins: int = ECE_BINS) -> pd.DataFrame:
    """Reliability curves: `timestep`, `layer`, `bin`, its `centre`, mean `predicted` u, mean `actual` error, `count`.

    A bin of equally many images per row, as in `expected_calibration_error`.
    """
    rows = []
    for k, timestep in enumerate(calibration.timesteps.tolist()):
        for i in calibration.layers:
            order = np.argsort(calibration.u[k, :, i])
            for number, members in enumerate(np.array_split(order, bins)):
                if len(members):
                    u, error = calibration.u[k, members, i], calibration.error[k, members, i]
                    centre = float(u.min() + u.max()) / 2
                    rows.append((timestep, i, number, centre, float(u.mean()), float(error.mean()), len(members)))
    return pd.DataFrame(rows, columns=["timestep", "layer", "bin", "centre", "predicted", "actual", "count"])


def summarise(calibration: Calibration) -> dict[str, Any]:
    """The findings as JSON: one row per layer (means over the timesteps), and tables over timestep and layer.

    The ECE before and after recalibration is that of the images that the maps were not fitted on.
    `mse` is of the noise ε, whatever the network predicts; `mse_early` is the head's in the first third of a
    denoising (large t), and so on.
    """
    judged, layers = ~calibration.fitted, calibration.layers
    u, error = calibration.u[:, judged], calibration.error[:, judged]
    before = expected_calibration_error(u, error)
    after = expected_calibration_error(calibration.recalibrated().u[:, judged], error)
    rho = rank_correlation(calibration.u, calibration.error)
    to_noise = np.square(calibration.info.get("epsilon_scale", np.ones(len(calibration.timesteps))))
    mse = calibration.squared_error.mean(axis=1) * to_noise[:, None]  # (T', N+1)
    mean_u, mean_error = calibration.u.mean(axis=1), calibration.error.mean(axis=1)  # (T', N)
    late, middle, early = np.array_split(np.arange(len(calibration.timesteps)), 3)
    rows = []
    for i in [*layers, calibration.u.shape[2]]:
        row: dict[str, Any] = {"layer": i}
        for name, table in (
            ("u", mean_u), ("error", mean_error), ("ece", before), ("ece_recalibrated", after), ("rank", rho),
        ):  # fmt: skip
            row[name] = float(table[:, i].mean()) if i in layers else None
        for name, part in (("mse_early", early), ("mse_middle", middle), ("mse_late", late)):
            row[name] = float(mse[part, i].mean())
        rows.append({key: None if value != value else value for key, value in row.items()})
    over_layers = mean_u[:, layers]
    rise = over_layers - np.minimum.accumulate(over_layers, axis=1)
    return {
        "format_version": FORMAT_VERSION,
        **calibration.info,
        "monotone_timesteps": int((rise.max(axis=1) <= 0).sum()),
        "largest_rise": float(rise.max()),
        "layers": rows,
        "tables": {
            "timesteps": calibration.timesteps.tolist(),
            "mean_u": _table(mean_u),
            "mean_error": _table(mean_error),
            "ece": _table(before),
            "ece_recalibrated": _table(after),
            "rank_correlation": _table(rho),
            "mse": _table(mse),
        },
    }


def _table(values: NDArray[Any]) -> list[list[float | None]]:
    """For JSON: six digits, None for NaN."""
    return [[None if np.isnan(value) else float(f"{value:.6g}") for value in row] for row in values]


def calibrate_checkpoint(
    checkpoint: Path,  # a run folder or a .safetensors file
    images: int = 256,
    bins: int = 20,  # timesteps, spread evenly over 0 … T−1
    dataset: str | None = None,  # default: what the run was trained on
    data_root: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """Calibrate a checkpoint on images of the test split, and write the calibration and its summary beside it.

    A folder of images has no test split: there every image has been seen in training, and `split` says so.
    A class-conditional model is told the images' own classes, or where they have none, the label that means none.
    Returns the calibration's file and the summary. Raises UserError when model or data are not to be had.
    """
    checkpoint = find_checkpoint(checkpoint)
    model, info = load_checkpoint(checkpoint, choose_device(device))
    name = dataset or info.get("dataset") or _dataset_of_run(checkpoint)
    data = load_images(name, model.image_shape[1], model.image_shape[0], data_root, train=False)
    if images < 4 or bins < 2:
        raise UserError(f"a calibration was asked for {images} images and {bins} bins: give at least 4 and 2")
    numbers = np.linspace(0, len(data) - 1, min(images, len(data))).round().astype(np.int64)
    schedule = Schedule(**info["schedule"])
    timesteps = np.unique(np.linspace(0, schedule.num_timesteps - 1, bins).round().astype(np.int64)).tolist()
    labels, whose = _labels(model, name, data_root, numbers)
    calibration = calibrate(
        model, schedule, data[torch.from_numpy(numbers)], timesteps, numbers.tolist(),
        labels, seed, on_batch=on_batch,
        checkpoint=checkpoint.name, checkpoint_sha256=info["sha256"], dataset=str(name),
        split="test" if name in NAMED else "all (a folder has no test split)",
        label_source=whose,
    )  # fmt: skip
    file, summary = calibration_file(checkpoint), summarise(calibration)
    calibration.save(file)
    write_json(file.with_suffix(".json"), summary)
    return file, summary


def _labels(
    model: EarlyExitModel, dataset: str, data_root: Path | None, numbers: NDArray[np.int64]
) -> tuple[Tensor | None, str | None]:
    """Labels (M,) of these images and whose they are; None for an unconditional model.

    Raises UserError when the data set's classes are not the model's.
    """
    if not model.backbone.num_classes:
        return None, None
    classes = model.backbone.num_classes - model.null_label
    try:
        labels = load_labels(dataset, data_root, train=False)
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
            f"{checkpoint} does not say which images it was trained on: name held-out ones with --dataset"
        ) from None
