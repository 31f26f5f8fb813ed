"""The threshold that meets a budget of GFLOPs, by the summary of a trace."""

from __future__ import annotations

import math

import numpy as np

from deediff.errors import UserError
from deediff.policies.threshold import Threshold
from deediff.traces.reader import Trace, read_trace
from deediff.traces.schema import THRESHOLDS


def budget_threshold(gflops: float, trace: Trace) -> Threshold:
    """The smallest τ whose estimated cost on `trace` is at most `gflops` per image and step (open loop).

    Raises UserError when the trace has no estimate, or every threshold costs more.
    """
    lowest = trace.what_if_limit
    if lowest is None:
        raise UserError(f"{trace.path} cannot find a threshold for a budget, because {trace.why_no_what_if}")
    if trace.meta.signal_exit is not None:
        raise UserError(f"{trace.path} records the signal of {trace.meta.policy}, not u: name a trace that recorded u")
    cost = float("nan")
    for tau in THRESHOLDS[np.float32(lowest[0]) <= THRESHOLDS]:
        cost = trace.what_if(float(tau)).gflops
        if cost <= gflops:
            return Threshold(round(float(tau), 3))
    raise UserError(f"no threshold costs {gflops:g} GFLOPs or less on {trace.path}: the cheapest is {cost:.4g}")


def read_budget(argument: str) -> Threshold:
    """'GFLOPs@TRACE' → policy. Raises UserError as `gflops_and_trace` and `budget_threshold`."""
    return budget_threshold(*gflops_and_trace("budget", argument))


def gflops_and_trace(policy: str, argument: str) -> tuple[float, Trace]:
    """Reads 'GFLOPs@TRACE'. Raises UserError when the budget is not above 0 or the trace cannot be opened."""
    gflops, _, path = argument.partition("@")
    if not path:
        raise UserError(f"policy {policy}:{argument} names no trace, expected {policy}:GFLOPs@TRACE")
    try:
        budget = float(gflops)
    except ValueError:
        budget = math.nan
    if not budget > 0:
        raise UserError(f"policy {policy}:{argument} gives {gflops} GFLOPs, expected a number above 0")
    return budget, read_trace(path)
