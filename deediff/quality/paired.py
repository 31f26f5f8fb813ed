"""The difference of a metric between two traces, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deediff.errors import UserError
from deediff.quality.jackknife import T_975, standard_error
from deediff.quality.results import Quality

POWER_80 = 0.861  # Student's t with 19 degrees of freedom, 80 % quantile


@dataclass(frozen=True)
class Difference:
    """First minus second."""

    metric: str
    value: float
    low: float  # 95 % interval
    high: float
    detectable: float  # the true difference that this number of images detects with 80 % power
    paired: bool  # equal seeds: the groups hold the same samples, so most of the noise cancels

    @property
    def inside_noise(self) -> bool:
        """Zero lies in the interval."""
        return self.low <= 0 <= self.high


def quality_difference(first: Quality, second: Quality) -> Difference:
    """First minus second. Raises UserError when the protocols differ: such values are not comparable."""
    if first.protocol != second.protocol:
        raise UserError(
            f"{first.metric} ({first.extractor}, {first.images} images against {first.reference}) and {second.metric} "
            f"({second.extractor}, {second.images} images against {second.reference}) are not comparable: "
            "evaluate both traces with the same metric, reference and number of images"
        )
    if not first.without or not second.without:
        raise UserError(f"{first.metric} has no interval of its own, so it cannot be compared")
    # Replicates that leave out the same samples may be subtracted whatever else differs: no need for `same_noise`.
    paired = first.seed is not None and first.seed == second.seed
    a, b = np.array(first.without), np.array(second.without)
    error = standard_error(a - b) if paired else float(np.hypot(standard_error(a), standard_error(b)))
    value = first.value - second.value
    return Difference(
        first.metric, value, value - T_975 * error, value + T_975 * error, (T_975 + POWER_80) * error, paired
    )
