"""Sampling with real early exits."""

from deediff.sampling.sampler import Step, sample

__all__ = ["Step", "sample"]
