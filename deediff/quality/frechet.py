"""The Fréchet distance between two sets of features, each taken as a Gaussian (Heusel et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from deediff.quality.jackknife import GROUPS, Features, Floats, Groups, JackknifeEstimate

AT_ONCE = 4096  # features at once


@dataclass(frozen=True, eq=False)
class FeatureMoments:
    """Count, sum and sum of outer products of features: additive, and enough for a Gaussian."""

    count: int
    total: Floats  # (D,)
    outer: Floats  # (D, D)

    @classmethod
    def of(cls, features: Features, origin: Floats) -> FeatureMoments:
        """Of (n, D) features minus `origin` (D,), which avoids cancellation; read in chunks."""
        size = features.shape[1]
        total, outer = np.zeros(size), np.zeros((size, size))
        for start in range(0, len(features), AT_ONCE):
            x = np.asarray(features[start : start + AT_ONCE], np.float64) - origin
            total += x.sum(axis=0)
            outer += x.T @ x
        return cls(len(features), total, outer)

    def __add__(self, other: FeatureMoments) -> FeatureMoments:
        return FeatureMoments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def __sub__(self, other: FeatureMoments) -> FeatureMoments:
        return FeatureMoments(self.count - other.count, self.total - other.total, self.outer - other.outer)

    def gaussian(self, origin: Floats) -> Gaussian:
        """Mean and unbiased covariance."""
        mean = self.total / self.count
        covariance = (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)
        return Gaussian(mean + origin, covariance)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal distribution of features."""

    mean: Floats  # (D,)
    covariance: Floats  # (D, D)

    @cached_property
    def root(self) -> Floats:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(torch.from_numpy(self.covariance))
        return ((vectors * values.clamp(min=0).sqrt()) @ vectors.T).numpy()

    def distance(self, other: Gaussian) -> float:
        """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), Dowson & Landau 1982; uses the cached root of this one."""
        shift = self.mean - other.mean
        product = self.root @ other.covariance @ self.root
        values = torch.linalg.eigvalsh(torch.from_numpy((product + product.T) / 2))
        cross = float(values.clamp(min=0).sqrt().sum())
        return float(shift @ shift + np.trace(self.covariance) + np.trace(other.covariance) - 2 * cross)


def frechet(features: Features, groups: Groups | None, reference: Gaussian) -> JackknifeEstimate:
    """Distance of (n, D) features from the reference, with an interval if `groups` (n,) are given."""
    origin = reference.mean
    if groups is None:
        return JackknifeEstimate(reference.distance(FeatureMoments.of(features, origin).gaussian(origin)), np.empty(0))
    parts = [FeatureMoments.of(features[groups == g], origin) for g in range(GROUPS)]
    whole = sum(parts[1:], parts[0])
    without = [reference.distance((whole - part).gaussian(origin)) for part in parts]
    return JackknifeEstimate(reference.distance(whole.gaussian(origin)), np.array(without))


def frechet_infinity(
    features: Features,
    reference: Gaussian,
    points: int = 15,
    seed: int = 0,
) -> tuple[float, float]:
    """The distance extrapolated to infinitely many images, and the standard error of that fit.

    A line through the distances of random subsets, a fifth to all of the images, over 1/n (FID∞, Chong & Forsyth
    2020).
    """
    rng, origin = np.random.default_rng(seed), reference.mean
    sizes = np.linspace(len(features) / 5, len(features), points).astype(int)
    subsets = (features[np.sort(rng.permutation(len(features))[:n])] for n in sizes)
    values = [reference.distance(FeatureMoments.of(subset, origin).gaussian(origin)) for subset in subsets]
    coefficients, covariance = np.polyfit(1 / sizes, values, 1, cov=True)
    return float(coefficients[1]), float(np.sqrt(covariance[1, 1]))
