"""Distances between the images of two traces of equal seeds, image by image: the effect of early exits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from deediff.errors import UserError
from deediff.storage import AnyPath, read_table
from deediff.traces.images import decode_png
from deediff.traces.meta import read_meta
from deediff.traces.pairing import noise_differences, same_noise
from deediff.traces.reader import Trace, read_trace
from deediff.traces.schema import samples_file

WINDOW, SIGMA = 11, 1.5  # of the Gaussian window of SSIM, in pixels
WHITE = 255.0


def find_full(trace: Trace) -> Trace | None:
    """The full network's trace of the same seed, solver, steps and checkpoint, in the same run.

    The one with the most images, and among those preferably one without UEMs; the trace itself if it is such a
    trace; None if there is none.
    """
    if trace.meta.is_full:
        return trace
    found = []
    files: list[AnyPath] = sorted(trace.path.parent.glob("*/trace.json"), key=str)
    for file in files:
        try:
            meta = read_meta(file)
        except UserError:
            continue  # damaged: skip it
        if meta.is_full and meta.complete and same_noise(trace.meta, meta):
            found.append((-meta.num_samples, meta.record != "exit", str(file), file.parent))
    return read_trace(min(found)[-1]) if found else None


def image_distances(trace: Trace, full: Trace) -> pd.DataFrame:
    """`sample`, `change`, `mse`, `psnr`, `ssim` of every image that both traces have; read part by part.

    change: mean absolute difference, mse: mean squared difference, both over pixels and channels in grey
    levels (0 … 255); psnr in dB, infinite for equal images; ssim as in `structural_similarity`.
    Raises UserError when the noise of the two differs, or there are no images.
    """
    if differs := noise_differences(trace.meta, full.meta):
        raise UserError(
            f"{trace.path} and {full.path} differ in {', '.join(differs)}: their images do not come from the same "
            "noise, so their distances are meaningless; sample a never-trace with the settings of the first"
        )
    tables = []
    for part in trace.image_parts:
        mine = read_table(samples_file(trace.path, part), columns=["sample", "png"]).to_pandas().dropna()
        if mine.empty:
            continue
        theirs = full.samples(range(int(mine["sample"].min()), int(mine["sample"].max()) + 1)).dropna()
        pairs = mine.merge(theirs, on="sample", suffixes=("", "_full"))
        if len(pairs):
            a, b = (torch.stack([_pixels(png) for png in pairs[column]]) for column in ("png", "png_full"))
            tables.append(pd.DataFrame({"sample": pairs["sample"], **_distances(a, b)}))
    if not tables:
        raise UserError(f"{trace.path} and {full.path} have no image in common")
    return pd.concat(tables, ignore_index=True)


def _pixels(png: bytes) -> Tensor:
    """PNG → (C,H,W) float32, 0 … 255."""
    pixels = decode_png(png).astype(np.float32)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())


def _distances(a: Tensor, b: Tensor) -> dict[str, np.ndarray]:
    """(B,C,H,W) twice → each distance (B,)."""
    difference = (a - b).flatten(1).double()
    mse = difference.square().mean(dim=1)
    values = {
        "change": difference.abs().mean(dim=1),
        "mse": mse,
        "psnr": 10 * torch.log10(WHITE**2 / mse),  # division by 0: infinite
        "ssim": structural_similarity(a, b),
    }
    return {name: value.numpy() for name, value in values.items()}


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of images with values 0 … 255: (B,C,H,W) twice → (B,) in [−1, 1], 1 for equal images.

    Wang et al. 2004, Eq. 13, averaged over all positions of an 11×11 Gaussian window (σ = 1.5) that lie
    inside the image, and over channels; K₁ = 0.01, K₂ = 0.03. NaN for images smaller than the window.
    """
    batch, channels, height, width = a.shape
    if min(height, width) < WINDOW:
        return torch.full((batch,), torch.nan, dtype=torch.float64)
    offset = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    line = torch.exp(-(offset**2) / (2 * SIGMA**2))
    line /= line.sum()

    def windowed(x: Tensor) -> Tensor:  # (B·C,1,H,W) → weighted mean of each window
        return F.conv2d(F.conv2d(x, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    a, b = (x.double().reshape(batch * channels, 1, height, width) for x in (a, b))
    mean_a, mean_b = windowed(a), windowed(b)
    var_a, var_b = windowed(a * a) - mean_a**2, windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )
    return similarity.reshape(batch, -1).mean(dim=1)
