"""Intervals: what a metric would have been without each of 20 disjoint groups of the images.

The plain bootstrap is no use here: it draws images twice, and duplicates inflate a Fréchet distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GROUPS = 20
T_975 = 2.093  # Student's t with 19 degrees of freedom
LEAST = 2 * GROUPS  # images; fewer make no groups

Floats = NDArray[np.float64]
Features = NDArray[np.float32]  # (n, D)
Groups = NDArray[np.int64]  # (n,) 0 … GROUPS−1


def group_of(samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group of each sample, by its number: two traces of one seed leave out the same samples together."""
    return samples % GROUPS


@dataclass(frozen=True)
class Estimate:
    """A metric of all images, and of all but each group."""

    value: float
    without: Floats  # (GROUPS,); (0,) where no interval was asked for

    @property
    def error(self) -> float:
        """Standard error, by the delete-a-group jackknife (Efron & Tibshirani 1993, section 11.5)."""
        return standard_error(self.without)

    @property
    def interval(self) -> tuple[float, float]:
        """95 %; needs `without`."""
        return self.value - T_975 * self.error, self.value + T_975 * self.error


def standard_error(without: Floats) -> float:
    """Of the value that all groups together give."""
    deviations = without - without.mean()
    return float(np.sqrt((len(without) - 1) / len(without) * (deviations**2).sum()))
