"""Sample into a trace folder: resumable, by any number of processes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.devices import choose_device, device_name, torchrun_process, versions
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.recording.finish import finish
from deediff.recording.maps import check_maps, check_samples, write_maps
from deediff.recording.parts import part_is_complete
from deediff.recording.writer import TraceWriter, cannot_write
from deediff.sampling.planned import plan_content, remembers, signal_exit
from deediff.sampling.sampler import NotFinite, Sampling, Step, prepare_sampling
from deediff.settings import PolicySpec, SamplingSettings
from deediff.storage import AnyPath, open_folder
from deediff.traces.meta import TraceMeta
from deediff.traces.reader import Trace, read_trace


def sample_to_trace(
    checkpoint: Path,  # a run folder or a .safetensors file
    folder: str | AnyPath,  # the trace's own folder, local or any fsspec URL
    settings: SamplingSettings,
    *,
    device: str = "auto",
    maps: Collection[int] = (),  # samples whose maps of u are recomputed afterwards, and logged
    on_step: Callable[[Step], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> AnyPath:
    """Sample into a trace folder; resumes if the folder holds parts of the same trace.

    Under torchrun each process takes every n-th part. Raises UserError for settings that do not fit the model, or
    when the folder holds another trace, or cannot be reached or written.
    """
    folder = open_folder(folder)
    checkpoint, where = find_checkpoint(checkpoint), choose_device(device)
    model, info = load_checkpoint(checkpoint, where)
    job = prepare_sampling(model, settings, Schedule(**info["schedule"]))  # raises before anything is written
    parts = job.settings.batches
    _check_maps(job, maps)
    rank, world = torchrun_process()
    if world > len(parts):
        raise UserError(
            f"{world} processes for {len(parts)} parts: use at most {len(parts)}"
            + (", or a smaller --batch-size" if world <= settings.num_samples else "")
        )
    _claim(folder, trace_meta(job, where))
    todo = [p for i, p in enumerate(parts) if i % world == rank and not part_is_complete(folder, i)]
    writer = TraceWriter(
        folder, job.solver.timesteps, model.num_blocks, {p: i for i, p in enumerate(parts)}, remembers(job.planned)
    )
    try:
        for step in job.steps(todo, cancelled):
            if step.step == len(job.solver.timesteps) - 1:  # a part is about to be written
                _check_claim(folder)
            writer.add(step)
            if on_step is not None:
                on_step(step)
    except NotFinite as error:
        raise UserError(
            f"{error}: the checkpoint is damaged, or its training failed; what was complete is kept in {folder}"
        ) from None
    _check_claim(folder)
    try:
        finish(folder, len(parts))
    except OSError as error:
        raise UserError(cannot_write(folder, error)) from None
    if mine := [number for number in maps if number % world == rank]:
        write_maps(read_trace(folder), mine, checkpoint, device, on_step, cancelled)
    return folder


def trace_meta(job: Sampling, device: torch.device) -> TraceMeta:
    """The trace.json of a sampling job before its first step."""
    model, settings = job.model, job.settings
    return TraceMeta(
        policy=PolicySpec.parse(settings.policy),
        num_samples=settings.num_samples,
        num_blocks=model.num_blocks,
        timesteps=job.solver.timesteps,
        record=settings.record,
        has_uncertainty=job.has_uncertainty,
        has_deviations=settings.deviations,
        has_memory=remembers(job.planned),
        signal_exit=signal_exit(job.planned, model),
        policy_needs_uncertainty=job.policy.needs_uncertainty,
        cost=job.cost(),
        settings=settings,
        solver=settings.solver,
        batch_size=settings.batch_size,
        policy_content=job.policy.content,
        plan_content=plan_content(job.planned) or None,
        recalibration_sha256=job.recalibration_sha256,
        uem_clamps=job.has_uncertainty and model.uem is not None and model.uem.clamps,
        device=device_name(device),
        threads=torch.get_num_threads(),
        dtype=settings.dtype,
        versions=versions(),
    )


def _check_maps(job: Sampling, maps: Collection[int]) -> None:
    """Raises UserError when these samples cannot have maps of u."""
    if not maps:
        return
    check_maps(job.model, job.has_uncertainty)
    check_samples(maps, job.settings.num_samples)


def missing_parts(trace: Trace) -> str:
    """A sentence on the parts that an incomplete trace lacks, and the ranks of torchrun that write them."""
    _, world = torchrun_process()
    total = -(-trace.meta.num_samples // (trace.meta.batch_size or trace.meta.num_samples))
    missing = [part for part in range(total) if not part_is_complete(trace.path, part)]
    ranks = sorted({part % world for part in missing})
    who = f" of rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}" if world > 1 else ""
    return (
        f"the trace is not complete: {len(missing)} of {total} parts{who} are missing; "
        "it is complete when they have ended, else run the same command again"
    )


def _check_claim(folder: AnyPath) -> None:
    """Raises UserError when trace.json has been deleted, probably with the whole folder."""
    if not (folder / "trace.json").exists():
        raise UserError(f"{folder} was removed while it was written: run the same command again")


def _claim(folder: AnyPath, meta: TraceMeta) -> None:
    """Write trace.json, or check that the one there describes the same trace."""
    path = folder / "trace.json"
    if path.exists():
        there, here = read_json(path), meta.to_json()
        theirs, mine = _identity(there), _identity(here)
        differs = [key for key, value in mine.items() if theirs[key] != value]
        if differs:
            remedy = "repeat its settings to resume"
            if differs == ["timesteps"] and all(there.get(key) == here[key] for key in ("spacing", "steps")):
                remedy = "another version spaced its timesteps: give those of its trace.json with --timesteps to resume"
            raise UserError(
                f"{folder} holds another trace (different: {', '.join(differs)}): {remedy}, or choose another --out"
            )
        return
    if any(folder.glob("part-*.parquet")):
        raise UserError(
            f"{folder} holds parts of a trace without a trace.json: remove the folder, or choose another --out"
        )
    try:
        write_json(path, meta.to_json())
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): choose another --out") from None


def _identity(content: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a trace.json that must be equal for a sampling to resume: any device and precision may finish it.

    The file name of the weights may change too; their SHA-256 may not. Timesteps are compared one by one, whatever
    spacing they came from.
    """
    left_out = ("dtype", "checkpoint", "spacing", "recalibrated")  # the last two by other fields
    defaults = SamplingSettings().to_json()  # traces of earlier versions lack the newer settings
    names = [name for name in defaults if name not in left_out]
    found = {name: content.get(name, defaults[name]) for name in names}
    if found["plan"] is not None:
        found["plan"] = {key: value for key, value in found["plan"].items() if key != "name"}
    return {**found, **{name: content.get(name) for name in ("policy_content", "plan_content", "recalibration_sha256")}}
