"""All exit policies by name. To add one: subclass `ExitPolicy`, and a line here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from deediff.errors import UserError
from deediff.policies.base import BatchMean, Bounded, ExitPolicy, Fixed, Never, Patience, Threshold
from deediff.policies.calibrated import read_excess, read_stopping
from deediff.policies.dual import read_dual
from deediff.policies.oracle import Oracle
from deediff.policies.schedule import budget_threshold, read_schedule
from deediff.traces.reader import Trace, read_trace


@dataclass(frozen=True)
class Entry:
    """How a policy is written, what it does, and how it is made from the text after its name."""

    usage: str
    help: str
    make: Callable[[str], ExitPolicy]


def _of_trace(name: str, make: Callable[[float, Trace], ExitPolicy]) -> Callable[[str], ExitPolicy]:
    """Makes a policy from 'GFLOPs@TRACE'."""

    def read(argument: str) -> ExitPolicy:
        gflops, _, trace = argument.partition("@")
        if not trace:
            raise UserError(f"policy {name}:{argument} names no trace, expected {POLICIES[name].usage}")
        try:
            budget = float(gflops)
        except ValueError:
            budget = math.nan
        if not budget > 0:
            raise UserError(f"policy {name}:{argument} asks for {gflops} GFLOPs, expected a number above 0")
        return make(budget, read_trace(trace))

    return read


POLICIES: dict[str, Entry] = {
    "never": Entry("never", "the full network", lambda _: Never()),
    "threshold": Entry(
        "threshold:τ", "exit when the uncertainty is ≤ τ, e.g. threshold:0.075", lambda a: Threshold(float(a))
    ),
    "patience": Entry(
        "patience:τ", "… and in the first half only if an earlier layer was certain too", lambda a: Patience(float(a))
    ),
    "batch-mean": Entry(
        "batch-mean:τ", "all exit together when their mean is ≤ τ, for comparison", lambda a: BatchMean(float(a))
    ),
    "fixed": Entry("fixed:i", "every sample leaves after i blocks, e.g. fixed:6", lambda a: Fixed(int(a))),
    "schedule": Entry(
        "schedule:FILE", "JSON: exit_layer or threshold over time, or layer_threshold; or: schedule:ase", read_schedule
    ),
    "budget": Entry(
        "budget:GFLOPs@TRACE",
        "the threshold that costs this much, by a trace's summary",
        _of_trace("budget", budget_threshold),
    ),
    "excess": Entry(
        "excess:δ",
        "exit when u is ≤ (1+δ) × what the deepest layer's is at that timestep, by the calibration",
        read_excess,
    ),
    "stopping": Entry(
        "stopping:GFLOPs",
        "thresholds per step and layer for this cost, by optimal stopping on the calibration",
        read_stopping,
    ),
    "oracle": Entry(
        "oracle:GFLOPs@TRACE",
        "the exits that a recording with deviations, of the same seed, knows to matter least, for comparison",
        _of_trace("oracle", Oracle),
    ),
    "dual": Entry("dual:t:CHECKPOINT", "another, shallow network for the first steps, down to timestep t", read_dual),
}
BOUNDS = "a policy may end in ,min:i (nobody leaves the full network before layer i) and ,max:i (all leave it there)"


def make_policy(spec: str | ExitPolicy) -> ExitPolicy:
    """A policy from its text, for example 'threshold:0.075,min:2'. Raises UserError when it means nothing."""
    if isinstance(spec, ExitPolicy):
        return spec
    plain, bounds = spec, dict[str, int]()
    while match := re.fullmatch(r"(.*),(min|max):(\d+)", plain, flags=re.DOTALL):
        plain, bound, layer = match.groups()
        if bound in bounds:
            raise UserError(f"policy {spec!r} gives {bound} twice; {BOUNDS}")
        bounds[bound] = int(layer)
    name, colon, argument = plain.partition(":")
    if name not in POLICIES or (name == "never" and colon):
        known = ", ".join(entry.usage for entry in POLICIES.values())
        raise UserError(f"unknown policy {spec!r}, expected one of: {known}; {BOUNDS}")
    try:
        policy = POLICIES[name].make(argument)
    except UserError:
        raise
    except ValueError:
        raise UserError(
            f"policy {spec!r}: {argument!r} is not a number, expected {POLICIES[name].usage}; {BOUNDS}"
        ) from None
    return Bounded(policy, bounds.get("min", 0), bounds.get("max")) if bounds else policy
