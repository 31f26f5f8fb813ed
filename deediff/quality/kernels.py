"""Kernel distances between two sets of features: KID (Bińkowski et al. 2018) and CMMD (Jayasumana et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from deediff.quality.jackknife import GROUPS, Features, Floats, Groups, JackknifeEstimate

AT_ONCE = 2048  # rows of the kernel matrix at once
Kernel = Callable[[Tensor, Tensor], Tensor]


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """(x·y / D + 1)³, (n, D) and (m, D) → (n, m)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(x: Tensor, y: Tensor, sigma: float = 10.0) -> Tensor:
    """exp(−|x − y|² / 2σ²), (n, D) and (m, D) → (n, m)."""
    squared = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    return torch.exp(-squared / (2 * sigma**2))


def kid(x: Features, groups: Groups | None, reference: Features, within: float) -> JackknifeEstimate:
    """Kernel distance of (n, D) features from the reference's (m, D): the unbiased estimate over all pairs.

    The usual mean over random subsets has the same expectation.
    `within` is `kid_within` of the reference.
    """
    return _mmd(x, groups, reference, polynomial, within, unbiased=True)


def cmmd(x: Features, groups: Groups | None, reference: Features, within: float) -> JackknifeEstimate:
    """`kid` with a Gaussian kernel on normalised CLIP embeddings, × 1000; the biased estimate, as published."""
    estimate = _mmd(x, groups, reference, gaussian, within, unbiased=False)
    return JackknifeEstimate(1000 * estimate.value, 1000 * estimate.without)


def kid_within(y: Features) -> float:
    """Mean kernel over the pairs of a reference, for `kid`."""
    return _mean_within(y, polynomial, unbiased=True)


def cmmd_within(y: Features) -> float:
    """Mean kernel over the pairs of a reference, for `cmmd`."""
    return _mean_within(y, gaussian, unbiased=False)


def _mean_within(y: Features, kernel: Kernel, unbiased: bool) -> float:
    one, m = np.ones((len(y), 1)), len(y)
    total = float(_sums(y, y, kernel, one, one)[0, 0]) - (float(_diagonal(y, kernel).sum()) if unbiased else 0.0)
    return total / (m * (m - unbiased))


def _mmd(
    x: Features, groups: Groups | None, y: Features, kernel: Kernel, reference: float, unbiased: bool
) -> JackknifeEstimate:
    """Squared maximum mean discrepancy (Gretton et al. 2012, Eq. 3 and 5), from sums of the kernel between groups."""
    one_hot = np.ones((len(x), 1)) if groups is None else np.eye(GROUPS)[groups]  # (n, G)
    within = _sums(x, x, kernel, one_hot, one_hot)  # (G, G)
    across = _sums(x, y, kernel, one_hot, np.ones((len(y), 1)))[:, 0]  # (G,)
    counts = one_hot.sum(axis=0)
    if unbiased:
        within[np.diag_indices(len(counts))] -= _diagonal(x, kernel) @ one_hot

    def value(inside: float, cross: float, n: float) -> float:
        return inside / (n * (n - unbiased)) + reference - 2 * cross / (n * len(y))

    total, cross, n = float(within.sum()), float(across.sum()), float(counts.sum())
    if groups is None:
        return JackknifeEstimate(value(total, cross, n), np.empty(0))
    lost = within.sum(axis=0) + within.sum(axis=1) - within.diagonal()
    without = [value(total - lost[g], cross - across[g], n - counts[g]) for g in range(GROUPS)]
    return JackknifeEstimate(value(total, cross, n), np.array(without))


def _sums(x: Features, y: Features, kernel: Kernel, x_groups: Floats, y_groups: Floats) -> Floats:
    """Sum of the kernel between every two groups, (n, A) and (m, B) one-hot → (A, B)."""
    sums = np.zeros((x_groups.shape[1], y_groups.shape[1]))
    b, b_groups = torch.from_numpy(np.asarray(y, np.float64)), torch.from_numpy(y_groups)
    for start in range(0, len(x), AT_ONCE):
        a = torch.from_numpy(np.asarray(x[start : start + AT_ONCE], np.float64))
        sums += x_groups[start : start + AT_ONCE].T @ (kernel(a, b) @ b_groups).numpy()
    return sums


def _diagonal(x: Features, kernel: Kernel) -> Floats:
    """(n,) kernel of each feature with itself."""
    rows = torch.from_numpy(np.asarray(x, np.float64)).split(1)
    return np.array([float(kernel(row, row)) for row in rows])
