"""How torch's CPU threads wait for work. Without torch, because OpenMP reads it when torch is imported."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Let idle threads sleep, unless the environment's OMP_WAIT_POLICY says otherwise; to be called before torch.

    By default they spin for milliseconds. Where another process needs the same core, the thread that all wait for does
    not get it, and small operators take up to a hundred times as long.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
