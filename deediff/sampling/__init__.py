"""Sampling with real early exits."""

from deediff.sampling.noise import sample_noise
from deediff.sampling.policies import POLICIES, ExitPolicy, Fixed, Never, Replay, Threshold, make_policy
from deediff.sampling.sampler import Step, sample

__all__ = [
    "POLICIES", "ExitPolicy", "Fixed", "Never", "Replay", "Step", "Threshold", "make_policy", "sample", "sample_noise",
]  # fmt: skip
