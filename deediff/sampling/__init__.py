"""Sampling with real early exits."""

from deediff.sampling.noise import sample_noise
from deediff.sampling.policies import ExitPolicy, Fixed, Never, Replay, Threshold
from deediff.sampling.registry import POLICIES, make_policy
from deediff.sampling.sampler import Step, sample

__all__ = [
    "POLICIES", "ExitPolicy", "Fixed", "Never", "Replay", "Step", "Threshold", "make_policy", "sample", "sample_noise",
]  # fmt: skip
