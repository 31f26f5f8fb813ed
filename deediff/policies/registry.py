"""All exit policies by name, and the parser of their texts. To add a policy: its file, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deediff.errors import UserError
from deediff.policies.base import ExitPolicy
from deediff.policies.batch_mean import BatchMean
from deediff.policies.bounded import Bounded
from deediff.policies.calibrated.excess import read_excess
from deediff.policies.calibrated.stopping import read_stopping
from deediff.policies.dual import read_dual
from deediff.policies.fixed import Fixed
from deediff.policies.from_trace.budget import read_budget
from deediff.policies.from_trace.oracle import read_oracle
from deediff.policies.never import Never
from deediff.policies.patience import Patience
from deediff.policies.remembering.drift import read_drift
from deediff.policies.remembering.every import read_every
from deediff.policies.remembering.first_block import read_first_block
from deediff.policies.remembering.teacache import read_teacache
from deediff.policies.schedule_file import read_schedule
from deediff.policies.threshold import Threshold
from deediff.settings import PolicySpec


@dataclass(frozen=True)
class Entry:
    """How a policy is written, what it does, and how it is read from the text after its name."""

    usage: str
    help: str
    read: Callable[[str], ExitPolicy]  # raises UserError; ValueError when a number is expected and not found


POLICIES: dict[str, Entry] = {
    "never": Entry("never", "the full network", lambda _: Never()),
    "threshold": Entry(
        "threshold:τ", "exit when the uncertainty u is ≤ τ, e.g. threshold:0.075", lambda a: Threshold(float(a))
    ),
    "patience": Entry(
        "patience:τ", "… and in the first half only if u was ≤ τ at an earlier layer, too", lambda a: Patience(float(a))
    ),
    "batch-mean": Entry(
        "batch-mean:τ",
        "a batch exits when its mean u is ≤ τ, for comparison",
        lambda a: BatchMean(float(a)),
    ),
    "fixed": Entry("fixed:i", "every sample exits after i blocks, e.g. fixed:6", lambda a: Fixed(int(a))),
    "schedule": Entry(
        "schedule:FILE", "JSON: exit_layer or threshold over time, or layer_threshold; or: schedule:ase", read_schedule
    ),
    "budget": Entry(
        "budget:GFLOPs@TRACE", "the threshold that costs this much according to a trace's summary", read_budget
    ),
    "excess": Entry(
        "excess:δ", "exit when u is ≤ (1+δ) × the calibrated mean u of the deepest UEM at that timestep", read_excess
    ),
    "stopping": Entry(
        "stopping:GFLOPs",
        "thresholds per step and layer for this cost, by optimal stopping on the calibration",
        read_stopping,
    ),
    "oracle": Entry(
        "oracle:GFLOPs@TRACE",
        "the exits of least deviation in a trace of the same seed recorded with deviations, for comparison",
        read_oracle,
    ),
    "every": Entry(
        "every:k",
        "exit at layer 0 but at every k-th step; with every:k,warmup:w,last neither at the first w steps nor the last",
        read_every,
    ),
    "drift": Entry(
        "drift:δ",
        "exit at layer 0 while the loss predicted from the sample's own drift since its last full evaluation is ≤ δ; "
        "drift:δ,cap:K at most K steps in a row",
        read_drift,
    ),
    "first-block": Entry(
        "first-block:δ",
        "exit at layer 1 while the first block's residual has changed by ≤ δ since the last full evaluation; "
        "first-block:δ,batch for the whole batch, for comparison",
        read_first_block,
    ),
    "teacache": Entry(
        "teacache:δ",
        "exit at layer 0 while the accumulated, rescaled change of the embedded input is ≤ δ",
        read_teacache,
    ),
    "dual": Entry("dual:t:CHECKPOINT", "another, shallow network for the first steps, down to timestep t", read_dual),
}
BOUNDS = (
    "a policy may end in ,min:i (no exit of the full network before layer i) and ,max:i (an exit at layer i at the "
    "latest)"
)


def make_policy(spec: str | ExitPolicy) -> ExitPolicy:
    """A policy from its text, for example 'threshold:0.075,min:2'. Raises UserError when it cannot be read."""
    if isinstance(spec, ExitPolicy):
        return spec
    parts = PolicySpec.parse(spec)
    if parts.name not in POLICIES or (parts.name == "never" and spec.startswith("never:")):
        known = ", ".join(entry.usage for entry in POLICIES.values())
        raise UserError(f"unknown policy {spec!r}, expected one of: {known}; {BOUNDS}")
    entry = POLICIES[parts.name]
    try:
        policy = entry.read(parts.argument)
    except UserError:
        raise
    except ValueError:
        raise UserError(
            f"policy {spec!r}: {parts.argument!r} is not a number, expected {entry.usage}; {BOUNDS}"
        ) from None
    bounded = parts.lowest is not None or parts.highest is not None
    return Bounded(policy, parts.lowest or 0, parts.highest) if bounded else policy
