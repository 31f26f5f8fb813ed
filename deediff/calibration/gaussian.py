"""A Gaussian with the mean and covariance of a data set: with noise added, its denoiser has a closed form.

At high noise a trained network is close to this denoiser (Wang & Vastola 2024, arXiv 2412.09726), so a plan may use
it in place of the network. The covariance is of low rank plus a multiple of the identity, U diag(λ) Uᵀ + λ_r (I − U Uᵀ)
(probabilistic PCA, Tipping & Bishop 1999): every x_t has the same principal axes, along which the problem is scalar.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deediff.calibration.npz import read_npz, write_npz
from deediff.errors import UserError

GAUSSIAN_IMAGES, RANK = 20_000, 256  # images to fit, and axes to keep, unless others are given


@dataclass(frozen=True, eq=False)
class ImageGaussian:
    """Mean and covariance of images in [−1, 1]; D = C·H·W."""

    mean: Tensor  # (C,H,W) float32
    axes: Tensor  # (r, D) float32, orthonormal
    variances: Tensor  # (r,) float32, along the axes
    rest: float  # variance along every other direction
    info: dict[str, Any] = field(default_factory=dict)  # source, images
    sha256: str = ""  # of the file it was read from

    @property
    def gflops(self) -> float:
        """Of one evaluation for one image: the products with U and Uᵀ."""
        return 2 * 2 * self.axes.numel() / 1e9

    def to(self, device: torch.device) -> ImageGaussian:
        """On another device."""
        mean, axes, variances = (part.to(device) for part in (self.mean, self.axes, self.variances))
        return ImageGaussian(mean, axes, variances, self.rest, self.info, self.sha256)

    def predict_x0(self, x: Tensor, alpha_bar: float) -> Tensor:
        """E[x_0 | x_t], the least-squares denoiser: (B,C,H,W) → (B,C,H,W).

        Along an axis of variance λ: μ + √ᾱ λ / (ᾱ λ + 1 − ᾱ) · (x_t − √ᾱ μ).
        """
        a = alpha_bar

        def gain(variance: Tensor) -> Tensor:
            return a**0.5 * variance / (a * variance + 1 - a)

        return self.mean + self._along_axes(x - a**0.5 * self.mean, gain(self._all_variances()))

    def teleport(self, x: Tensor, alpha_bar: float, next_alpha_bar: float) -> Tensor:
        """The exact solution of the Gaussian's probability-flow ODE from ᾱ to ᾱ′: (B,C,H,W) → (B,C,H,W).

        Each coordinate of x_t − √ᾱ μ keeps its size in standard deviations √(ᾱ λ + 1 − ᾱ) (Wang & Vastola 2024, Eq. 8).
        """
        a, b = alpha_bar, next_alpha_bar
        variances = self._all_variances()
        scale = ((b * variances + 1 - b) / (a * variances + 1 - a)).sqrt()
        return b**0.5 * self.mean + self._along_axes(x - a**0.5 * self.mean, scale)

    def _all_variances(self) -> Tensor:
        """(r+1,): along the axes, then along every other direction."""
        return torch.cat([self.variances, self.variances.new_tensor([self.rest])])

    def _along_axes(self, x: Tensor, gains: Tensor) -> Tensor:
        """Scale x along each axis, and along the rest: (B,C,H,W), (r+1,) → (B,C,H,W)."""
        flat = x.flatten(1)
        coordinates = (flat @ self.axes.T) * (gains[:-1] - gains[-1])  # (B, r)
        return (gains[-1] * flat + coordinates @ self.axes).view_as(x)

    def save(self, path: Path) -> None:
        """Write the file atomically; axes in float16."""
        arrays = {"mean": self.mean.numpy(), "axes": self.axes.numpy().astype(np.float16)}
        write_npz(path, self.info, arrays | {"variances": self.variances.numpy(), "rest": np.array(self.rest)})

    @classmethod
    def load(cls, path: Path) -> ImageGaussian:
        """Raises UserError when the file is missing or is not readable."""
        info, arrays, sha256 = read_npz(path, ("mean", "axes", "variances", "rest"), "Gaussian")
        try:
            mean, axes, variances = (
                torch.from_numpy(arrays[name].astype(np.float32)) for name in ("mean", "axes", "variances")
            )
            if axes.shape != (len(variances), mean.numel()) or mean.ndim != 3:
                raise ValueError(f"its shapes {tuple(mean.shape)} and {tuple(axes.shape)} do not fit")
            return cls(mean, axes, variances, float(arrays["rest"]), info, sha256)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path} is not a readable Gaussian ({error}): run 'deediff calibrate' again") from None


def fit_gaussian(
    batches: Iterable[Tensor],  # (B,C,H,W) each, in [−1, 1]
    rank: int = RANK,  # axes to keep, at most D − 1
    info: dict[str, Any] | None = None,
) -> ImageGaussian:
    """Mean and covariance of these images; the directions beyond the first `rank` get their mean variance.

    Raises UserError when there are fewer than two images or `rank` is below 1.
    """
    if rank < 1:
        raise UserError(f"the rank of a Gaussian is {rank}, expected 1 or more")
    count, total, squares, shape = 0, torch.zeros(()), torch.zeros(()), torch.Size()
    for batch in batches:
        flat, shape = batch.flatten(1).double(), batch.shape[1:]
        count, total, squares = count + len(flat), total + flat.sum(dim=0), squares + flat.T @ flat
    if count < 2:
        raise UserError(f"a Gaussian needs two images or more, there are {count}")
    mean = total / count
    covariance = squares / count - torch.outer(mean, mean)
    variances, axes = torch.linalg.eigh(covariance)  # ascending
    rank = min(rank, len(mean) - 1)
    kept, rest = variances[-rank:].clamp(min=0), variances[:-rank].clamp(min=0).mean()
    order = torch.arange(rank - 1, -1, -1)
    chosen = axes[:, -rank:].T[order]
    return ImageGaussian(
        mean.float().view(shape), chosen.float(), kept[order].float(), float(rest), {**(info or {}), "images": count}
    )


def gaussian_file(checkpoint: Path) -> Path:
    """The Gaussian of a checkpoint file."""
    return checkpoint.with_suffix(".gaussian.npz")
