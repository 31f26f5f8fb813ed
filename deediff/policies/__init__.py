"""Exit policies: at which layer each sample exits. One file per policy; `registry` lists them by name."""

from deediff.policies.base import ExitPolicy, LayerState
from deediff.policies.batch_mean import BatchMean
from deediff.policies.bounded import Bounded
from deediff.policies.fixed import Fixed
from deediff.policies.never import Never
from deediff.policies.patience import Patience
from deediff.policies.registry import BOUNDS, POLICIES, Entry, make_policy
from deediff.policies.replay import Replay
from deediff.policies.threshold import Threshold, check_threshold

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
