"""Sampling to disk: write, resume, recompute and map."""
