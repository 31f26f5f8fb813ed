"""Analyses of traces."""
