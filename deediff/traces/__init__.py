"""Traces: what every sample did at every step, as Parquet."""
