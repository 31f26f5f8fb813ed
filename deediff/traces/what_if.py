"""Exits under another threshold, from a trace's summary alone: an open-loop estimate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deediff.traces.schema import THRESHOLDS
from deediff.traces.summary import Ints

if TYPE_CHECKING:
    from deediff.traces.reader import Trace


@dataclass(frozen=True)
class WhatIf:
    """Exits of a threshold on the recorded trajectories."""

    threshold: float  # the stop on the grid of thresholds: τ, or the δ of a policy that compares a signal
    exits: Ints  # (S, N+1) samples that exit at each layer
    layer_ratio: float  # mean(exit layer) / N
    gflops: float  # mean per image and step, with the UEMs evaluated up to the exit


def lowest_answer(trace: Trace) -> tuple[float, str] | None:
    """The lowest threshold that can be answered, and why; None when none can."""
    meta = trace.meta
    if len(trace.cost.fixed_steps) == len(trace.timesteps):
        return None
    if meta.signal_exit is not None:
        return 0.0, f"what policy {meta.policy} compares with δ was recorded at every step"
    if not meta.has_uncertainty:
        return None
    if meta.record == "full":
        return 0.0, "u was recorded at every layer"
    if trace.threshold is None:
        return None
    return trace.threshold, f"recorded with exits at τ = {trace.threshold:g}: u is unknown after them"


def exits_at(trace: Trace, left_by: NDArray[np.int32], index: int) -> Ints:
    """(S, N+1) exits at one stop of the grid; `left_by` (K, S, N) of the summary."""
    summary, layer = trace.summary, trace.meta.signal_exit
    if layer is None:
        exits = summary.exits_of(left_by[index])
    else:
        exits = np.zeros_like(summary.exits)
        exits[:, layer] = summary.signals[:, : index + 1].sum(axis=1)
        exits[:, -1] = summary.samples - exits[:, layer]
    fixed = trace.cost.fixed_steps
    exits[fixed] = summary.exits[fixed]
    return exits


def stop_of(threshold: float) -> int:
    """The index of the nearest stop of the grid."""
    return int(np.abs(THRESHOLDS - np.float32(threshold)).argmin())
