"""Intervals by the jackknife: the metric without each of 20 disjoint groups of the images.

The bootstrap does not work here: it draws images twice, and duplicates inflate a Fréchet distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUPS = 20
T_975 = 2.093  # Student's t with 19 degrees of freedom
LEAST = 2 * GROUPS  # images, two per group

Floats = NDArray[np.float64]
Features = NDArray[np.float32]  # (n, D)
Groups = NDArray[np.int64]  # (n,) 0 … GROUPS−1


def group_of(samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group of each sample, by its number, so that two traces of one seed have the same groups."""
    return samples % GROUPS


@dataclass(frozen=True)
class JackknifeEstimate:
    """A metric of all images, and without each group."""

    value: float
    without: Floats  # (GROUPS,), or (0,) without an interval

    @property
    def error(self) -> float:
        """Standard error, by the delete-a-group jackknife (Efron & Tibshirani 1993, section 11.5)."""
        return standard_error(self.without)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval; needs `without`."""
        return self.value - T_975 * self.error, self.value + T_975 * self.error


def standard_error(without: Floats) -> float:
    """Standard error of the value of all groups, from the values without each group (GROUPS,)."""
    deviations = without - without.mean()
    return float(np.sqrt((len(without) - 1) / len(without) * (deviations**2).sum()))
