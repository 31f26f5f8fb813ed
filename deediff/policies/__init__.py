"""Exit policies: when a sample leaves the network."""

from deediff.policies.base import (
    BatchMean,
    Bounded,
    ExitPolicy,
    Fixed,
    Never,
    Patience,
    Replay,
    Threshold,
    Visit,
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
    "Never",
    "Patience",
    "Replay",
    "Threshold",
    "Visit",
    "check_threshold",
    "make_policy",
]
