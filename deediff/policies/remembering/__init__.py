"""Policies that read a sample's own past: when it last ran the full network, and what has changed since."""

from deediff.policies.remembering.every import Every

__all__ = ["Every"]
