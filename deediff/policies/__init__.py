"""Exit policies: when a sample leaves the network."""

from deediff.policies.base import (
    BatchMean,
    Bounded,
    ExitPolicy,
    Fixed,
    LayerState,
    Never,
    Patience,
    Replay,
    Threshold,
    check_threshold,
)
from deediff.policies.registry import BOUNDS, POLICIES, Entry, make_policy

__all__ = [
    "BOUNDS",
    "POLICIES",
    "BatchMean",
    "Bounded",
    "Entry",
    "ExitPolicy",
    "Fixed",
    "LayerState",
    "Never",
    "Patience",
    "Replay",
    "Threshold",
    "check_threshold",
    "make_policy",
]
