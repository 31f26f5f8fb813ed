"""Benchmarks: what real exits are worth in seconds, and what writing a trace costs."""
