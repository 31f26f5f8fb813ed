"""`deediff bench sampler`: what real exits are worth in seconds, beside what they promise in FLOPs.

Everything is measured side by side in one process: the variants take turns, and medians are compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deediff.analysis.cost import model_cost
from deediff.devices import autocast, device_name
from deediff.models import EarlyExitModel
from deediff.sampling.noise import sample_noise
from deediff.sampling.policies import ExitPolicy, Never, Replay
from deediff.sampling.sampler import Record, predict


def independent_exits(samples: int, steps: int, blocks: int, layer_ratio: float, seed: int = 0) -> Tensor:
    """(samples, steps) exit layers drawn independently over 0 … N, with the given mean (≥ 0.5) / N."""
    rng = torch.Generator().manual_seed(seed)
    stays = torch.rand(samples, steps, generator=rng) < 2 * layer_ratio - 1
    return torch.where(stays, blocks, torch.randint(0, blocks + 1, (samples, steps), generator=rng))


def bimodal_exits(samples: int, steps: int, blocks: int, seed: int = 0) -> Tensor:
    """(samples, steps) like the published runs: layer 1 or 2 early, none late, a noisy transition between."""
    rng = torch.Generator().manual_seed(seed)
    early = torch.linspace(1.35, -0.65, steps).clamp(0, 1)  # probability of leaving early, over the steps
    leaves = torch.rand(samples, steps, generator=rng) < early
    return torch.where(leaves, torch.randint(1, 3, (samples, steps), generator=rng), blocks)


def matmul_peak(device: torch.device, clock: Callable[[], float], seconds: float = 0.5) -> float:
    """GFLOP/s of a large float32 matrix product on this machine."""
    n = 1024
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    done, tick = 0, clock()
    while clock() - tick < seconds:
        a @ b
        _finish(device)
        done += 1
    return done * 2 * n**3 / 1e9 / (clock() - tick)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def _evaluate(
    model: EarlyExitModel, policy: ExitPolicy, record: Record, deviations: bool, steps: int, x: Tensor
) -> None:
    """The network's part of `steps` denoising steps, on the same images every time."""
    numbers, expected = torch.arange(len(x), device=x.device), None
    for s in range(steps):
        timestep = 999 - s * (999 // steps)
        expected = predict(model, x, policy, s, timestep, numbers, record, deviations, expected).exit_layer


def bench_sampler(
    model: EarlyExitModel,
    device: torch.device,
    batch_sizes: Sequence[int] = (1, 16, 64),
    steps: int = 4,
    repeats: int = 3,
    cpu_time: bool = False,  # time of this process instead of the wall's, for a machine that is busy
) -> dict[str, Any]:
    """One table: full, simulated (every block and head), recorded-full, and real exits on replayed profiles.

    efficiency = (time of the full network / time with exits) × (GFLOPs with exits / GFLOPs of the full
    network): 1 means that every saved FLOP is saved time.
    """
    model = model.to(device)
    cost, blocks = model_cost(model), model.num_blocks
    clock = time.process_time if cpu_time else time.perf_counter
    rows: list[dict[str, Any]] = []
    for batch in batch_sizes:
        profiles = {
            "bimodal": bimodal_exits(batch, steps, blocks),
            "independent 0.7": independent_exits(batch, steps, blocks, 0.7),
            "independent 0.5": independent_exits(batch, steps, blocks, 0.5),
        }
        x = sample_noise(0, range(batch), 0, model.image_shape).to(device)

        def steps_of(policy: ExitPolicy, record: Record = "exit", deviations: bool = False) -> Callable[[Tensor], None]:
            return partial(_evaluate, model, policy, record, deviations, steps)

        variants: dict[str, tuple[Callable[[Tensor], None], Tensor | None]] = {
            "full": (steps_of(Never()), None),
            "recorded in full": (steps_of(Never(), "full"), None),
            "simulated": (steps_of(Never(), "full", deviations=True), None),
            **{f"real, {name}": (steps_of(Replay(exits.to(device))), exits) for name, exits in profiles.items()},
        }
        times: dict[str, list[float]] = {name: [] for name in variants}
        with torch.inference_mode(), autocast(device):
            for repeat in range(repeats + 1):
                for name, (run, _) in variants.items():
                    _finish(device)
                    tick = clock()
                    run(x)
                    _finish(device)
                    if repeat:  # the first round warms up
                        times[name].append(clock() - tick)
        full = statistics.median(times["full"])
        for name, (_, exits) in variants.items():
            seconds = statistics.median(times[name])
            counts = torch.bincount(
                (exits if exits is not None else torch.full((1,), blocks)).flatten(), minlength=blocks + 1
            )
            gflops = cost.mean_gflops(counts.numpy(), with_uem=exits is not None)
            rows.append(
                {
                    "batch": batch,
                    "variant": name,
                    "ms_per_image_step": 1000 * seconds / batch / steps,
                    "gflops": gflops,
                    "gflop_per_s": gflops * batch * steps / seconds,
                    "speed_up": full / seconds,
                    "efficiency": full / seconds * gflops / cost.full if exits is not None else None,
                }
            )
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "clock": "process time" if cpu_time else "wall",
        "steps": steps,
        "repeats": repeats,
        "matmul_peak_gflop_per_s": matmul_peak(device, clock),
        "rows": rows,
    }
