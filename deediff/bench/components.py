"""Measured seconds of each component, beside the GFLOPs of `deediff flops`."""

from __future__ import annotations

import numpy as np
import torch

from deediff.bench.clock import make_clock
from deediff.cost.calls import component_calls
from deediff.devices import autocast, keep_freed_memory
from deediff.models import EarlyExitModel


@torch.no_grad()
def time_components(model: EarlyExitModel, device: torch.device, batch: int, repeats: int) -> dict[str, float]:
    """Component name → seconds per image: medians over rounds in which all take turns, after one warm-up round."""
    keep_freed_memory()
    clock = make_clock(device)
    with autocast(device):
        calls = component_calls(model.to(device), batch)
        rounds = []
        for _ in range(1 + repeats):
            seconds = []
            for call in calls.values():
                start = clock()
                call.run()
                seconds.append(clock() - start)
            rounds.append(seconds)
    return dict(zip(calls, (np.median(rounds[1:], axis=0) / batch).tolist(), strict=True))
