"""`deediff bench sampler`: what real exits are worth in seconds, beside what they promise in FLOPs.

Everything is measured side by side in one process: the variants take turns step by step, and for each
step the median over the rounds counts, because machines are noisy and work of others comes and goes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.bench.clock import Clock, make_clock, matmul_peak
from deediff.bench.profiles import Profile, bimodal_exits, independent_exits, read_profile
from deediff.cost.components import model_cost
from deediff.cost.cost import Cost
from deediff.devices import device_name, keep_freed_memory
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import DDPM, Solver
from deediff.models import EarlyExitModel
from deediff.policies import ExitPolicy, Never, Replay
from deediff.recording.writer import TraceWriter
from deediff.sampling.network import Network
from deediff.sampling.sampler import Sampling, Step, denoise
from deediff.settings import Record, SamplingSettings

PART_STEPS = 50  # a part of the trace is charged as if it held this many steps
NOTE = (
    "a step is network, solver and noise; 'recorded' and 'real' include trace writing: taking each step in, and "
    f"1/{PART_STEPS} of writing a part of {PART_STEPS} steps"
)


@dataclass(frozen=True)
class Variant:
    """One way of taking a denoising step."""

    name: str
    policy: ExitPolicy
    gflops: float  # per image and step
    record: Record = "exit"
    deviations: bool = False
    logged: bool = True  # writes a trace


def bench_sampler(
    model: EarlyExitModel,
    device: torch.device,
    batch_sizes: Sequence[int] | None = None,  # None: 1, 16, 64, and 512 on CUDA
    steps: int = 4,  # spread evenly over the 1000 timesteps
    repeats: int = 15,  # rounds at most
    minutes: float = 8.0,  # for all batch sizes together; each gets at least one round
    profile: str | None = None,  # see read_profile; None: an imitation of the published ones
    cpu_time: bool = False,  # time of this process instead of the wall's, for a machine that is busy
    schedule: Schedule | None = None,
) -> dict[str, Any]:
    """One table: full, recorded in full, simulated (every block, UEM and head), and real exits on replayed profiles.

    efficiency = (time of the full network / time with exits) × (GFLOPs with exits / GFLOPs of the full network),
    where exits evaluate every UEM on the way and pay for the trace, and the full network does neither: 1 means
    that every saved FLOP is saved time. See NOTE for what is inside the times. Raises UserError for a model
    without exits, or a bad profile.
    """
    end = time.perf_counter() + 60 * minutes
    Replay(torch.empty(0)).check(model)
    given = read_profile(profile, model.num_blocks) if profile is not None else None
    keep_freed_memory()
    model, cost = model.to(device), model_cost(model)
    clock, solver = make_clock(device, cpu_time), DDPM(schedule or Schedule(), steps)
    peak = matmul_peak(device, clock)
    sizes = list(batch_sizes or ([1, 16, 64, 512] if device.type == "cuda" else [1, 16, 64]))
    variants = [make_variants(cost, given, solver.timesteps, batch) for batch in sizes]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:

        def play(k: int, steps: int = steps) -> NDArray[np.float64]:
            return _round(model, solver, variants[k], sizes[k], steps, Path(folder), clock)

        weights = []  # how the time is divided: by that of the warm-up
        for k in range(len(sizes)):
            tick = time.perf_counter()
            play(k, steps=1)
            weights.append(time.perf_counter() - tick)
        for k, batch in enumerate(sizes):
            now = time.perf_counter()
            rounds: list[NDArray[np.float64]] = []
            longest, until = 0.0, now + (end - now) * weights[k] / sum(weights[k:])
            while not rounds or (len(rounds) < repeats and now + longest <= until):
                rounds.append(play(k))
                now, before = time.perf_counter(), now
                longest = max(longest, now - before)
            seconds = np.median(rounds, axis=0).sum(axis=1) / steps  # (variants,) per step of the whole batch
            rows += [
                {
                    "batch": batch,
                    "variant": variant.name,
                    "rounds": len(rounds),
                    "ms_per_image_step": 1000 * float(t) / batch,
                    "gflops": variant.gflops,
                    "gflop_per_s": variant.gflops * batch / float(t),
                    "share_of_peak": variant.gflops * batch / float(t) / peak,
                    "speed_up": float(seconds[0] / t),
                    "efficiency": float(seconds[0] / t) * variant.gflops / cost.full
                    if isinstance(variant.policy, Replay)
                    else None,
                }
                for variant, t in zip(variants[k], seconds, strict=True)
            ]
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "clock": "process time" if cpu_time else "wall",
        "timesteps": ", ".join(map(str, solver.timesteps)),
        "matmul_peak_gflop_per_s": peak,
        "note": NOTE,
        "rows": rows,
    }


def make_variants(cost: Cost, given: Profile | None, timesteps: list[int], batch: int) -> list[Variant]:
    """What is compared; the full network first."""
    blocks, steps = len(cost.blocks), len(timesteps)
    profiles = {
        "bimodal (imitated)": bimodal_exits(batch, steps, blocks),
        "independent 0.7": independent_exits(batch, steps, blocks, 0.7),
        "independent 0.5": independent_exits(batch, steps, blocks, 0.5),
    }
    if given is not None:
        profiles = {given.name: given.at(timesteps, batch), **profiles}
        del profiles["bimodal (imitated)"]

    def promised(exits: Tensor) -> float:
        return cost.mean_gflops(torch.bincount(exits.flatten(), minlength=blocks + 1).numpy(), with_uem=True)

    asked = cost.full + sum(cost.uems)
    return [
        Variant("full", Never(), cost.full, logged=False),
        Variant("recorded in full", Never(), asked, "full"),
        Variant("simulated", Never(), asked + sum(cost.heads), "full", deviations=True, logged=False),
        *(Variant(f"real, {name}", Replay(exits), promised(exits)) for name, exits in profiles.items()),
    ]


def _round(
    model: EarlyExitModel,
    solver: Solver,
    variants: list[Variant],
    batch: int,
    steps: int,
    folder: Path,
    clock: Clock,
) -> NDArray[np.float64]:
    """Let the variants take `steps` steps in turn: (variants, steps) seconds."""
    blocks, samples, network = model.num_blocks, range(batch), Network(model)
    classes = tuple(range(model.backbone.num_classes)) or None
    streams = []
    for v in variants:
        settings = SamplingSettings(
            num_samples=batch, batch_size=batch, record=v.record, deviations=v.deviations, classes=classes
        )
        streams.append(denoise(network, Sampling(model, settings, solver, v.policy), samples))
    # One timestep more than there are: these parts are never full, so nothing is written.
    writers = [TraceWriter(folder, [*solver.timesteps, 0], blocks, {samples: 0}) for _ in variants]
    taken: list[list[Step]] = [[] for _ in variants]
    seconds, rng = np.empty((len(variants), steps)), np.random.default_rng()
    for s in range(steps):
        for k in rng.permutation(len(variants)):  # so that none always follows the same one
            tick = clock()
            step = next(streams[k])
            if variants[k].logged:
                writers[k].add(step)
            seconds[k, s] = clock() - tick
            taken[k].append(step)
    for k, variant in enumerate(variants):
        if variant.logged:
            seconds[k] += _part_seconds(taken[k], blocks, folder, clock) / PART_STEPS
    return seconds


def _part_seconds(taken: list[Step], blocks: int, folder: Path, clock: Clock) -> float:
    """What the last step of a part costs the writer, where it writes all of them: these steps, repeated."""
    writer = TraceWriter(folder, [0] * PART_STEPS, blocks, {taken[0].samples: 0})
    steps = [replace(taken[s % len(taken)], step=s) for s in range(PART_STEPS)]
    for step in steps[:-1]:
        writer.add(step)
    tick = clock()
    writer.add(steps[-1])
    return clock() - tick
