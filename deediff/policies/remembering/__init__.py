"""Policies that read a sample's own past: when it last ran the full network, and what has changed since."""

from deediff.policies.remembering.drift import Drift
from deediff.policies.remembering.every import Every
from deediff.policies.remembering.first_block import FirstBlock
from deediff.policies.remembering.signal import SignalPolicy
from deediff.policies.remembering.teacache import TeaCache

__all__ = ["Drift", "Every", "FirstBlock", "SignalPolicy", "TeaCache"]
