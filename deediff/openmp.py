"""How torch's CPU threads wait for work. Without torch, because OpenMP reads it when torch is imported."""

from __future__ import annotations

import os


def wait_passively() -> None:
    """Let idle threads sleep, unless the environment's OMP_WAIT_POLICY says otherwise; to be called before torch.

    By default they spin, and hold a core that another process, such as a training, may need. For the explorer only:
    on an idle machine, waking threads costs a network that samples one image about half its speed, and trainings 3 to
    26 %, so the command lines keep the default (`deediff bench sampler --batch-sizes 1`, `bench train`).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
