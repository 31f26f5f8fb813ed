"""`deediff bench sampler`: speed-up of real exits in seconds, beside the saving in GFLOPs.

All variants are measured in one process and take turns step by step; each step counts with its median over the rounds,
because other processes may disturb a shared machine at any time.
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
from deediff.bench.planned import bench_plan
from deediff.bench.profiles import Profile, bimodal_exits, independent_exits, read_profile
from deediff.cost.components import model_cost
from deediff.cost.cost import Cost
from deediff.devices import device_name, keep_freed_memory
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import DDPM, Solver
from deediff.models import EarlyExitModel
from deediff.policies import ExitPolicy, Never, Replay
from deediff.recording.writer import TraceWriter
from deediff.sampling.planned import PlannedStep
from deediff.sampling.sampler import Networks, Sampling, Step, denoise
from deediff.settings import Record, SamplingSettings

PART_STEPS = 50  # steps per part of a trace, over which the cost of writing the part is spread
NOTE = (
    "a step is network, solver and noise; 'recorded' and 'real' include the trace: recording each step, and "
    f"1/{PART_STEPS} of writing a part of {PART_STEPS} steps"
)


@dataclass(frozen=True)
class SamplerBench:
    """Settings of `bench_sampler`."""

    batch_sizes: Sequence[int] | None = None  # None: 1, 16, 64, and 512 on CUDA
    steps: int = 4  # spread evenly over the 1000 timesteps
    repeats: int = 15  # largest number of rounds
    minutes: float = 8.0  # for all batch sizes together; each gets at least one round
    profile: str | None = None  # see `read_profile`; None: an imitation of the published ones
    cpu_time: bool = False  # CPU time of this process instead of wall time, for a busy machine


@dataclass(frozen=True)
class Variant:
    """One way of computing a denoising step."""

    name: str
    policy: ExitPolicy
    gflops: float  # per image and step
    record: Record = "exit"
    deviations: bool = False
    logged: bool = True  # whether a trace is written
    planned: Sequence[PlannedStep] = ()  # what runs at each step; empty: what the policy decides


def bench_sampler(
    model: EarlyExitModel,
    device: torch.device,
    bench: SamplerBench | None = None,  # None: the defaults
    schedule: Schedule | None = None,
) -> dict[str, Any]:
    """One table: full, recorded in full, simulated (every block, UEM and head), replayed real exits, and a plan.

    The plan is compared with the full network at the plan's own timesteps.
    efficiency = (time of the full network / time with exits) × (GFLOPs with exits / GFLOPs of the full network).
    With exits, the UEMs and the trace are included; the full network has neither. At 1, every saved FLOP is saved time.
    The times are described by NOTE. Raises UserError for a model without exits or a bad profile.
    """
    bench = bench or SamplerBench()
    end = time.perf_counter() + 60 * bench.minutes
    Replay(torch.empty(0)).check(model)
    given = read_profile(bench.profile, model.num_blocks) if bench.profile is not None else None
    keep_freed_memory()
    model, cost, schedule = model.to(device), model_cost(model), schedule or Schedule()
    clock, solver = make_clock(device, bench.cpu_time), DDPM(schedule, bench.steps)
    peak, plan = matmul_peak(device, clock), bench_plan(model, schedule)
    full = Variant("full", Never(), cost.full, logged=False)
    planned = Variant(f"real, plan {plan.name}", Never(), plan.gflops(model), planned=plan.steps)
    sizes = list(bench.batch_sizes or ([1, 16, 64, 512] if device.type == "cuda" else [1, 16, 64]))
    rounds = list[_Rounds]()
    for batch in sizes:
        variants = [full, *make_variants(cost, given, solver.timesteps, batch)]
        rounds += [
            _Rounds(model, solver, variants, batch, clock),
            _Rounds(model, plan.solver, [full, planned], batch, clock),
        ]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = []  # shares of the time, in proportion to a first step
        for each in rounds:
            tick = time.perf_counter()
            each.play(1, Path(folder))
            weights.append((time.perf_counter() - tick) * len(each.solver.timesteps))
        for k, each in enumerate(rounds):
            now = time.perf_counter()
            times: list[NDArray[np.float64]] = []
            longest, until = 0.0, now + (end - now) * weights[k] / sum(weights[k:])
            while not times or (len(times) < bench.repeats and now + longest <= until):
                times.append(each.play(len(each.solver.timesteps), Path(folder)))
                now, before = time.perf_counter(), now
                longest = max(longest, now - before)
            found = _rows(each, times, cost.full, peak)
            rows += found[1:] if each.solver is plan.solver else found  # the full network has a row already
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "clock": "process time" if bench.cpu_time else "wall",
        "timesteps": ", ".join(map(str, solver.timesteps)),
        "matmul_peak_gflop_per_s": peak,
        "note": NOTE,
        "rows": rows,
    }


def make_variants(cost: Cost, given: Profile | None, timesteps: list[int], batch: int) -> list[Variant]:
    """The variants to compare with the full network."""
    blocks, steps = len(cost.blocks), len(timesteps)
    profiles = {
        "bimodal (imitated)": bimodal_exits(batch, steps, blocks),
        "independent 0.7": independent_exits(batch, steps, blocks, 0.7),
        "independent 0.5": independent_exits(batch, steps, blocks, 0.5),
    }
    if given is not None:
        profiles = {given.name: given.at(timesteps, batch), **profiles}
        del profiles["bimodal (imitated)"]

    def gflops(exits: Tensor) -> float:
        return cost.mean_gflops(torch.bincount(exits.flatten(), minlength=blocks + 1).numpy(), with_uem=True)

    with_uems = cost.full + sum(cost.uems)
    return [
        Variant("recorded in full", Never(), with_uems, "full"),
        Variant("simulated", Never(), with_uems + sum(cost.heads), "full", deviations=True, logged=False),
        *(Variant(f"real, {name}", Replay(exits), gflops(exits)) for name, exits in profiles.items()),
    ]


@dataclass(frozen=True)
class _Rounds:
    """Rounds of the variants with one batch size."""

    model: EarlyExitModel
    solver: Solver
    variants: list[Variant]
    batch: int
    clock: Clock

    def play(self, steps: int, folder: Path) -> NDArray[np.float64]:
        """One round, in which the variants take `steps` steps in turn: (variants, steps) seconds."""
        blocks, samples, clock, variants = self.model.num_blocks, range(self.batch), self.clock, self.variants
        networks = Networks()
        streams = [denoise(networks, self._job(variant), samples) for variant in variants]
        # With one timestep more than there are, these parts are never full, so nothing is written.
        writers = [TraceWriter(folder, [*self.solver.timesteps, 0], blocks, {samples: 0}) for _ in variants]
        taken: list[list[Step]] = [[] for _ in variants]
        seconds, rng = np.empty((len(variants), steps)), np.random.default_rng()
        for s in range(steps):
            for k in rng.permutation(len(variants)):  # so that no variant always follows the same one
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

    def _job(self, variant: Variant) -> Sampling:
        settings = SamplingSettings(
            num_samples=self.batch,
            batch_size=self.batch,
            record=variant.record,
            deviations=variant.deviations,
            classes=tuple(range(self.model.backbone.num_classes)) or None,
        )
        planned = variant.planned or [PlannedStep(variant.policy)] * len(self.solver.timesteps)
        return Sampling(self.model, settings, self.solver, variant.policy, planned)


def _rows(rounds: _Rounds, times: list[NDArray[np.float64]], full: float, peak: float) -> list[dict[str, Any]]:
    """A row per variant, from (variants, steps) seconds of each round, and the GFLOPs of the full network."""
    seconds = np.median(times, axis=0).mean(axis=1)  # (variants,) per step of the whole batch
    rows = []
    for variant, t in zip(rounds.variants, seconds.tolist(), strict=True):
        speed_up = float(seconds[0] / t)
        rows.append(
            {
                "batch": rounds.batch,
                "variant": variant.name,
                "rounds": len(times),
                "ms_per_image_step": 1000 * t / rounds.batch,
                "gflops": variant.gflops,
                "gflop_per_s": variant.gflops * rounds.batch / t,
                "share_of_peak": variant.gflops * rounds.batch / t / peak,
                "speed_up": speed_up,
                "efficiency": speed_up * variant.gflops / full if variant.name.startswith("real") else None,
            }
        )
    return rows


def _part_seconds(taken: list[Step], blocks: int, folder: Path, clock: Clock) -> float:
    """Seconds that the writer takes for the last step of a part, when it writes the part: these steps, repeated."""
    writer = TraceWriter(folder, [0] * PART_STEPS, blocks, {taken[0].samples: 0})
    steps = [replace(taken[s % len(taken)], step=s) for s in range(PART_STEPS)]
    for step in steps[:-1]:
        writer.add(step)
    tick = clock()
    writer.add(steps[-1])
    return clock() - tick
