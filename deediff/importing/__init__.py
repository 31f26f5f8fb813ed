"""Checkpoints and exit layers of other code, converted to run folders."""
