"""One number per sample of a trace, to sort images by. Traces are read part by part."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.storage import read_table
from deediff.traces.reader import Trace
from deediff.traces.schema import samples_file


def exit_layer_per_sample(trace: Trace) -> pd.Series:
    """Mean exit layer over the steps, by sample number; read from the samples files, without the rows."""
    columns = ["sample", "mean_exit_layer"]
    tables = [read_table(samples_file(trace.path, part), columns=columns).to_pandas() for part in trace.image_parts]
    if not tables:
        raise UserError(f"{trace.path} has no samples files, which hold images and mean exit layers: copy them, too")
    return pd.concat(tables).set_index("sample")["mean_exit_layer"].sort_index()


def gflops_per_sample(trace: Trace) -> pd.Series:
    """Mean GFLOPs per step, by sample number, the evaluated UEMs included."""
    _needs_rows(trace)
    found = []
    for numbers, layers in trace.iter_exit_layers():
        gflops = trace.cost.of_exits(layers, trace.meta.policy_needs_uncertainty)
        found.append(pd.Series(gflops.mean(axis=1), index=numbers))
    return pd.concat(found).sort_index()


def uncertainty_per_sample(trace: Trace) -> pd.Series:
    """Mean over the steps of u at the exit layer (of the deepest UEM without an exit), by sample number.

    NaN for a sample without u. Raises UserError when the trace has no u.
    """
    _needs_rows(trace)
    found = []
    for part, (numbers, layers) in zip(trace.parts, trace.iter_exit_layers(), strict=True):
        u = at_exit(trace.uncertainty(part), layers)
        known = ~np.isnan(u)
        mean = np.where(known, u, 0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
        found.append(pd.Series(mean, index=numbers))
    return pd.concat(found).sort_index()


def at_exit(uncertainty: NDArray[np.float32], exit_layer: NDArray[np.int8]) -> NDArray[np.float32]:
    """u at each exit layer, (…, S, N) and (…, S) → (…, S); at layer N−1 without an exit."""
    deepest = np.minimum(exit_layer, uncertainty.shape[-1] - 1).astype(np.int64)
    return np.take_along_axis(uncertainty, deepest[..., None], axis=-1)[..., 0]


def _needs_rows(trace: Trace) -> None:
    if not trace.parts:
        raise UserError(f"{trace.path} has no rows: the same sampling command writes them again")
