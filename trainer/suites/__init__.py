"""Experiment suites: rows of published tables, their baselines, results and claims."""
