"""Traces: exit layers and u of every sample and step, as Parquet."""
