"""Sampling plans: the timesteps of a sampling job, and for each of them the exit and its readout."""

from deediff.plans.plan import Plan, PlanStep

__all__ = ["Plan", "PlanStep"]
