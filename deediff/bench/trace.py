"""`deediff bench trace`: what logging costs while sampling, and how fast a trace is written and read."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deediff.bench.clock import Clock, make_clock
from deediff.bench.profiles import independent_exits
from deediff.devices import device_name, keep_freed_memory
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import DDIM, Solver
from deediff.json_files import write_json
from deediff.models import EarlyExitModel
from deediff.policies import ExitPolicy, Replay, make_policy
from deediff.recording.finish import finish
from deediff.recording.job import trace_meta
from deediff.recording.parts import Part, write_part
from deediff.recording.writer import TraceWriter
from deediff.sampling.sampler import prepare_sampling, sample
from deediff.settings import Record, SamplingSettings
from deediff.storage import write_atomically
from deediff.traces.reader import read_trace
from deediff.traces.schema import rows_file

SYNTHETIC = (128, 1000)  # samples and steps of the part whose throughput is measured


def bench_trace(
    model: EarlyExitModel,
    device: torch.device,
    folder: Path,  # empty; the traces stay there
    num_samples: int = 64,
    batch_size: int = 64,  # samples per part
    steps: int = 20,
    policy: str = "threshold:0.1",
    repeats: int = 3,
    schedule: Schedule | None = None,
) -> dict[str, Any]:
    """Logging beside sampling, with real exits and in full; then the throughput on a large part of random u.

    Logging is all that the writer does, the merged summary and waiting for the disk included; `sync_ms` says
    how long the disk takes for one small file. Replayed exits at half depth stand for a model whose samples
    leave early, whatever the weights do under `policy`. Medians. Raises UserError when the policy does not fit
    the model.
    """
    keep_freed_memory()
    model, clock = model.to(device), make_clock(device)
    solver = DDIM(schedule or Schedule(), steps)
    half = Replay(independent_exits(num_samples, steps, model.num_blocks, 0.5))
    cases: list[tuple[ExitPolicy, Record]] = [
        (make_policy(policy), "exit"),
        (make_policy(policy), "full"),
        (half, "exit"),
    ]
    warm_up = SamplingSettings(num_samples=min(num_samples, batch_size), batch_size=batch_size)
    next(sample(model, warm_up, policy=half, solver=solver))
    seconds = np.empty((repeats, len(cases), 2))
    for r, k in np.ndindex(repeats, len(cases)):
        seconds[r, k] = _log(model, folder / f"{k}-{r}", num_samples, batch_size, solver, *cases[k], clock)
    rows = []
    for k, (chosen, record) in enumerate(cases):
        sampling, logging = np.median(seconds[:, k], axis=0).tolist()
        trace = read_trace(folder / f"{k}-0")
        size = sum(rows_file(trace.path, part).stat().st_size for part in trace.parts)
        rows.append(
            {
                "policy": chosen.spec,
                "record": record,
                "layer_ratio": trace.meta.layer_ratio,
                "sampling_seconds": sampling,
                "logging_seconds": logging,
                "logging_share": logging / (sampling + logging),
                "bytes_per_row": size / (num_samples * steps),
            }
        )
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "num_samples": num_samples,
        "batch_size": batch_size,
        "steps": steps,
        "throughput": _throughput(model, folder / "synthetic", repeats, clock),
        "rows": rows,
    }


def _log(
    model: EarlyExitModel,
    folder: Path,
    num_samples: int,
    batch_size: int,
    solver: Solver,
    policy: ExitPolicy,
    record: Record,
    clock: Clock,
) -> tuple[float, float]:
    """Sample a trace as `sample_to_trace` does: seconds of sampling and of logging."""
    settings = SamplingSettings(num_samples=num_samples, batch_size=batch_size, record=record)
    job = prepare_sampling(model, settings, policy=policy, solver=solver)
    parts = job.settings.batches
    write_json(folder / "trace.json", trace_meta(job, next(model.parameters()).device).to_json())
    writer = TraceWriter(folder, solver.timesteps, model.num_blocks, {part: i for i, part in enumerate(parts)})
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
