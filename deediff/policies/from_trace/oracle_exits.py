"""The exits that would have been free, from the deviations that a full trace records.

The oracle exits at the first layer whose prediction is near the full network's. It evaluates no UEM, so its cost
is that of the blocks and one output head. The policy `oracle:GFLOPs@TRACE` samples with these exits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.traces.reader import Trace


def oracle_exits(deviation: NDArray[np.floating], tolerance: float) -> NDArray[np.int64]:
    """The first layer whose deviation is at most `tolerance`, else N: (…, N) → (…). NaN exceeds every tolerance."""
    near = deviation <= tolerance
    return np.where(near.any(axis=-1), near.argmax(axis=-1), deviation.shape[-1])


def trained_exits(trace: Trace) -> NDArray[np.bool_]:
    """(N+1,) bool: the layers with a trained exit, by their recorded u, and N; all layers if no u was recorded."""
    evaluated = trace.summary.u_count.any(axis=0)
    return np.append(evaluated | (not evaluated.any()), True)


def weighted_deviation(trace: Trace, part: int, weights: NDArray[np.floating]) -> NDArray[np.floating]:
    """(B, S, N) deviations of a part times weights (S,); NaN at layers without an exit."""
    return np.where(trained_exits(trace)[:-1], trace.deviation(part) * weights[:, None], np.nan)


def affordable_tolerance(
    trace: Trace,  # recorded with --record full --deviations
    gflops: float,  # per image and step
    weights: NDArray[np.floating],  # (S,) effect of a deviation at each step on x_0
) -> float:
    """The smallest tolerance whose exits cost at most `gflops`, to one part in a million; reads part by part.

    Raises UserError when an exit at the first possible layer at every step costs more.
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
