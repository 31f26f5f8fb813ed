"""What no exit rule can know: which exits would have been free, from the deviations of a full trace.

The oracle leaves at the first layer whose answer is near the full network's. It asks no UEM, so its cost
is that of the blocks and one output head. The policy `oracle:GFLOPs@TRACE` samples with its exits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.traces.reader import Trace


def oracle_exits(deviation: NDArray[np.floating], tolerance: float) -> NDArray[np.int64]:
    """The first layer whose deviation is at most `tolerance`, else N: (…, N) → (…). NaN is never near."""
    near = deviation <= tolerance
    return np.where(near.any(axis=-1), near.argmax(axis=-1), deviation.shape[-1])


def can_leave(trace: Trace) -> NDArray[np.bool_]:
    """(N+1,) the layers with a trained exit: those whose UEM was asked, and N; all, where no UEM was."""
    asked = trace.summary.u_count.any(axis=0)
    return np.append(asked | (not asked.any()), True)


def weighted_deviation(trace: Trace, part: int, weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """(B, S, N) deviations of a part times weights (S,); NaN where nobody can leave."""
    return np.where(can_leave(trace)[:-1], trace.deviation(part) * weights[:, None], np.nan)


def affordable_tolerance(
    trace: Trace,  # recorded with --record full --deviations
    gflops: float,  # per image and step
    weights: NDArray[np.floating],  # (S,) what a deviation at each step is worth
) -> float:
    """The smallest tolerance whose exits cost no more, to one part in a million; the parts are read one by one.

    Raises UserError when even leaving at the first exit always costs more.
    """
    prices = trace.cost.at_exit(with_uem=False)

    def cost(tolerance: float) -> float:
        total = count = 0.0
        for part in trace.parts:
            paid = prices[oracle_exits(weighted_deviation(trace, part, weights), tolerance)]
            total, count = total + float(paid.sum()), count + paid.size
        return total / count

    if (least := cost(np.inf)) > gflops:
        raise UserError(f"no exits cost {gflops:g} GFLOPs or less on {trace.path}: the cheapest cost {least:.4g}")
    low, high = 0.0, 1.0
    while cost(high) > gflops:
        high *= 4
    if cost(low) <= gflops:
        return low
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) > gflops else (low, middle)
    return high
