"""Policies derived from a recorded trace."""
