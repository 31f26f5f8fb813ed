"""`deediff bench trace`: share of recording in the sampling time, and the speed of writing and reading a trace."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deediff.bench.clock import Clock, make_clock
from deediff.bench.profiles import independent_exits
from deediff.devices import device_name, keep_freed_memory
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import DDIM
from deediff.json_files import write_json
from deediff.models import EarlyExitModel
from deediff.policies import ExitPolicy, Replay, make_policy
from deediff.recording.finish import finish
from deediff.recording.job import trace_meta
from deediff.recording.parts import Part, write_part
from deediff.recording.writer import TraceWriter
from deediff.sampling.sampler import Sampling, prepare_sampling
from deediff.settings import Record, SamplingSettings
from deediff.storage import write_atomically
from deediff.traces.reader import read_trace
from deediff.traces.schema import rows_file

SYNTHETIC = (128, 1000)  # samples and steps of the part whose throughput is measured


@dataclass(frozen=True)
class TraceBench:
    """Settings of `bench_trace`."""

    policy: str = "threshold:0.1"
    num_samples: int = 64
    batch_size: int = 64  # samples per part
    steps: int = 20
    repeats: int = 3  # rounds


def bench_trace(
    model: EarlyExitModel,
    device: torch.device,
    folder: Path,  # empty; the traces are kept there
    bench: TraceBench | None = None,  # None: the defaults
    schedule: Schedule | None = None,
) -> dict[str, Any]:
    """Recording beside sampling, with real exits and in full; then the throughput on a large part of random u.

    `logging` is everything that the writer does, including the merged summary and waiting for the disk; `sync_ms` is
    the time to write one small file. Replayed exits at half depth represent a model whose samples exit early, since
    under `policy` the weights decide. Medians. Raises UserError when the policy does not fit the model.
    """
    bench = bench or TraceBench()
    keep_freed_memory()
    model, clock = model.to(device), make_clock(device)
    solver = DDIM(schedule or Schedule(), bench.steps)
    half = Replay(independent_exits(bench.num_samples, bench.steps, model.num_blocks, 0.5))
    cases: list[tuple[ExitPolicy, Record]] = [
        (make_policy(bench.policy), "exit"),
        (make_policy(bench.policy), "full"),
        (half, "exit"),
    ]
    settings = SamplingSettings(num_samples=bench.num_samples, batch_size=bench.batch_size)
    jobs = [
        prepare_sampling(model, replace(settings, record=record), policy=policy, solver=solver)
        for policy, record in cases
    ]
    next(jobs[-1].steps())  # warm-up
    seconds = np.empty((bench.repeats, len(jobs), 2))
    for r, k in np.ndindex(bench.repeats, len(jobs)):
        seconds[r, k] = _log(jobs[k], folder / f"{k}-{r}", clock)
    rows = []
    for k, job in enumerate(jobs):
        sampling, logging = np.median(seconds[:, k], axis=0).tolist()
        trace = read_trace(folder / f"{k}-0")
        size = sum(rows_file(trace.path, part).stat().st_size for part in trace.parts)
        rows.append(
            {
                "policy": job.policy.spec,
                "record": job.settings.record,
                "layer_ratio": trace.meta.layer_ratio,
                "sampling_seconds": sampling,
                "logging_seconds": logging,
                "logging_share": logging / (sampling + logging),
                "bytes_per_row": size / (bench.num_samples * bench.steps),
            }
        )
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "num_samples": bench.num_samples,
        "batch_size": bench.batch_size,
        "steps": bench.steps,
        "throughput": _throughput(model, folder / "synthetic", bench.repeats, clock),
        "rows": rows,
    }


def _log(job: Sampling, folder: Path, clock: Clock) -> tuple[float, float]:
    """Sample a trace as `sample_to_trace` does: seconds of sampling and of recording."""
    model, parts = job.model, job.settings.batches
    write_json(folder / "trace.json", trace_meta(job, next(model.parameters()).device).to_json())
    writer = TraceWriter(folder, job.solver.timesteps, model.num_blocks, {part: i for i, part in enumerate(parts)})
    sampling, logging, tick = 0.0, 0.0, clock()
    for step in job.steps():
        now = clock()
        writer.add(step)
        sampling, logging, tick = sampling + now - tick, logging + clock() - now, clock()
    finish(folder, len(parts))
    return sampling, logging + clock() - tick


def _throughput(model: EarlyExitModel, folder: Path, repeats: int, clock: Clock) -> dict[str, float]:
    """Write and read one part of random u and random images, which compress worst."""
    samples, steps = SYNTHETIC
    blocks, rng = model.num_blocks, np.random.default_rng(0)
    u = rng.random((samples, steps, blocks), dtype=np.float32)
    exits = rng.integers(0, blocks + 1, (samples, steps), dtype=np.int8)
    images = rng.integers(0, 256, (samples, *model.image_shape), dtype=np.uint8)
    timesteps = list(range(steps - 1, -1, -1))
    job = prepare_sampling(model, SamplingSettings(solver="ddpm", steps=steps, num_samples=samples, record="full"))
    write_json(folder / "trace.json", trace_meta(job, torch.device("cpu")).to_json())

    def seconds(work: Callable[[], object]) -> float:
        times = []
        for _ in range(repeats):
            tick = clock()
            work()
            times.append(clock() - tick)
        return statistics.median(times)

    part = Part(range(samples), timesteps, exits, u, None, images, blocks)
    write = seconds(lambda: write_part(folder, 0, part))
    size = sum(path.stat().st_size for path in folder.glob("*-00000.*"))
    finish(folder, 1)
    trace = read_trace(folder)
    trace.what_if(0.1)  # loads the summary
    read = seconds(lambda: (trace.uncertainty(0), trace.exit_layers()))
    return {
        "rows": samples * steps,
        "bytes_per_row": rows_file(folder, 0).stat().st_size / (samples * steps),
        "write_rows_per_s": samples * steps / write,
        "write_mb_per_s": size / 1e6 / write,
        "read_rows_per_s": samples * steps / read,
        "first_what_if_ms": 1000 * seconds(lambda: read_trace(folder).what_if(0.1)),  # opens the trace
        "what_if_ms": 1000 * seconds(lambda: trace.what_if(0.1)),
        "sync_ms": 1000 * seconds(lambda: write_atomically(folder / "small", b"")),
    }
