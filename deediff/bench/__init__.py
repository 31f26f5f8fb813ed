"""Benchmarks of sampling, traces, training and the explorer; see `deediff bench`."""
