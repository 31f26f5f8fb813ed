"""Clocks of the benchmarks, and the peak speed of the machine."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Clock = Callable[[], float]  # seconds since an arbitrary moment


def make_clock(device: torch.device, cpu_time: bool = False) -> Clock:
    """Wall time, or CPU time of this process; each reading waits until the device has finished its queue."""
    read = time.process_time if cpu_time else time.perf_counter

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        return read()

    return clock


def matmul_peak(device: torch.device, clock: Clock, seconds: float = 1.0) -> float:
    """GFLOP/s of the fastest of many large matrix products: bfloat16 on CUDA, float32 elsewhere."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    best, start = float("inf"), clock()
    while (tick := clock()) - start < seconds:
        a @ b
        best = min(best, clock() - tick)
    return 2 * n**3 / 1e9 / best
