"""Statistics of exits from the summary of a trace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deediff.traces.reader import Trace
from deediff.traces.summary import Ints


def exit_probability(exits: Ints) -> NDArray[np.float64]:
    """P(exit at layer | step): counts (S, N+1) → (S, N+1), rows sum to 1."""
    return exits / exits.sum(axis=1, keepdims=True)


def mean_exit_layer(exits: Ints) -> NDArray[np.float64]:
    """Mean exit layer of each step: counts (S, N+1) → (S,)."""
    return exit_probability(exits) @ np.arange(exits.shape[1])


def exit_quantiles(exits: Ints, shares: Sequence[float]) -> Ints:
    """(S, N+1), Q shares → (Q, S): the lowest layer by which that share of samples has exited."""
    exited = exits.cumsum(axis=1) / exits.sum(axis=1, keepdims=True)  # (S, N+1)
    return np.stack([(exited < share - 1e-12).sum(axis=1) for share in shares])


def timestep_share(exits: Ints) -> float:
    """Share of the exit layer's variance explained by the timestep: Var(E[exit | t]) / Var(exit).

    NaN when the exit layer does not vary.
    """
    p, layers = exit_probability(exits), np.arange(exits.shape[1])
    mean = p @ layers
    within = (p @ layers**2 - mean**2).mean()
    between = mean.var()
    return float(between / (between + within)) if between + within > 1e-12 else float("nan")


def exit_counts_table(exits: Ints, timesteps: Sequence[int]) -> pd.DataFrame:
    """One row per cell of the heatmap: `step`, `timestep`, `exit_layer`, `count`, `probability`."""
    steps, layers = exits.shape
    return pd.DataFrame(
        {
            "step": np.repeat(np.arange(steps), layers),
            "timestep": np.repeat(np.asarray(timesteps), layers),
            "exit_layer": np.tile(np.arange(layers), steps),
            "count": exits.ravel(),
            "probability": (exits / exits.sum(axis=1, keepdims=True)).ravel(),
        }
    )


def threshold_table(trace: Trace, thresholds: list[float]) -> pd.DataFrame:
    """Layer ratio, GFLOPs and exit histogram per threshold. Raises UserError as `what_if` does."""
    rows = []
    for threshold in thresholds:
        answer = trace.what_if(threshold)
        counts = answer.exits.sum(axis=0) / answer.exits.sum()
        rows.append(
            {
                "threshold": answer.threshold,
                "layer_ratio": answer.layer_ratio,
                "gflops": answer.gflops,
                **{f"exit_{i}": share for i, share in enumerate(counts)},
            }
        )
    return pd.DataFrame(rows)
