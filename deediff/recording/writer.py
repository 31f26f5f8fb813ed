"""Writes a trace while sampling: part by part, resumable, any number of processes."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deediff.calibration.recalibrated import recalibrate
from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.datasets import to_uint8
from deediff.devices import choose_device, device_name, versions
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.policies.registry import make_policy
from deediff.recording.maps import check_maps, write_maps
from deediff.recording.parts import finish, part_is_complete, write_part
from deediff.sampling.cost import sampling_cost
from deediff.sampling.sampler import NotFinite, Record, Step, batches, sample
from deediff.storage import AnyPath, open_folder, write_atomically
from deediff.traces.reader import read_trace
from deediff.traces.schema import FORMAT_VERSION


class TraceWriter:
    """Consumes the sampler's steps; writes each batch as one part when its last step is in."""

    def __init__(self, folder: AnyPath, timesteps: list[int], num_blocks: int, part_of: dict[range, int]):
        self.folder, self.timesteps, self.num_blocks, self.part_of = folder, timesteps, num_blocks, part_of
        self._steps: list[Step] = []
        self._start = time.perf_counter()

    def add(self, step: Step) -> bool:
        """Take one step. True when this completed a part."""
        self._steps.append(dataclasses.replace(step, x=step.x if self._is_last(step) else step.x[:0], x0=step.x0[:0]))
        if not self._is_last(step):
            return False
        exit_layer = torch.stack([s.exit_layer for s in self._steps], dim=1).numpy().astype(np.int8)  # (B, S)
        uncertainty = torch.stack([s.uncertainty for s in self._steps], dim=1).numpy()  # (B, S, N)
        deviations = [s.deviation for s in self._steps if s.deviation is not None]
        deviation = torch.stack(deviations, dim=1).numpy() if deviations else None
        part = self.part_of[step.samples]
        images = to_uint8(step.x).cpu().numpy()
        seconds = time.perf_counter() - self._start
        try:
            timing = self.folder / f"timing-{part:05d}.json"
            write_atomically(timing, json.dumps({"seconds": seconds}).encode(), sync=False)
            write_part(
                self.folder,
                part,
                step.samples,
                self.timesteps,
                exit_layer,
                uncertainty,
                deviation,
                images,
                self.num_blocks,
            )
        except OSError as error:
            raise UserError(_cannot_write(self.folder, error)) from None
        self._steps = []
        self._start = time.perf_counter()
        return True

    def _is_last(self, step: Step) -> bool:
        return step.step == len(self.timesteps) - 1


def sample_to_trace(
    checkpoint: Path,  # a run folder or a .safetensors file
    folder: str | AnyPath,  # the trace's own folder, local or any fsspec URL
    num_samples: int,
    policy: str = "never",
    solver: str = "ddim",
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 64,
    spacing: str = "trailing",
    eta: float = 0.0,
    record: Record = "exit",
    deviations: bool = False,
    device: str = "auto",
    on_step: Callable[[Step], None] | None = None,
    *,
    classes: Sequence[int] | None = None,
    guidance: float | None = None,
    recalibrated: bool = False,  # u through the maps of the checkpoint's calibration
    maps: Collection[int] = (),  # samples whose maps of u are computed again afterwards, and logged
    cancelled: Callable[[], bool] | None = None,
) -> AnyPath:
    """Sample into a trace folder; resumes there if it holds a part of the same trace. Settings as for `sample`.

    Under torchrun each process takes every n-th part. Raises UserError for bad settings, or when
    the folder holds another trace, or cannot be reached or written.
    """
    folder = open_folder(folder)
    checkpoint, where = find_checkpoint(checkpoint), choose_device(device)
    model, info = load_checkpoint(checkpoint, where)
    schedule = Schedule(**info["schedule"])
    calibration = recalibrate(model) if recalibrated else None
    stepper = make_solver(solver, schedule, steps, spacing, eta)
    chosen = make_policy(policy).prepared(model, stepper, guidance)
    parts = batches(num_samples, max(1, batch_size))
    stream_settings: dict[str, Any] = dict(
        policy=chosen, seed=seed, batch_size=batch_size, record=record, deviations=deviations,
        classes=classes, guidance=guidance, cancelled=cancelled,
    )  # fmt: skip
    sample(model, num_samples, solver=stepper, **stream_settings)  # raises before anything is written
    has_uncertainty = model.uem is not None and (record == "full" or chosen.needs_uncertainty)
    if maps:
        check_maps(model, has_uncertainty)
        if not all(0 <= number < num_samples for number in maps):
            raise UserError(
                f"maps are asked of samples {min(maps)} … {max(maps)}, but there are only 0 … {num_samples - 1}"
            )
    rank, world = _process()
    if world > len(parts):
        raise UserError(
            f"{world} processes for {len(parts)} parts: use at most {len(parts)}"
            + (", or a smaller --batch-size" if world <= num_samples else "")
        )
    settings = {
        "policy": chosen.spec,
        "policy_content": chosen.content,
        "solver": solver,
        "steps": steps,
        "spacing": spacing,
        "eta": eta,
        "seed": seed,
        "num_samples": num_samples,
        "batch_size": batch_size,
        "record": record,
        "deviations": deviations,
        "classes": None if classes is None else list(classes),
        "guidance": guidance,
        "checkpoint_sha256": info["sha256"],
        "recalibration_sha256": None if calibration is None else calibration.sha256,
    }
    meta = {
        "format_version": FORMAT_VERSION,
        "complete": False,
        **settings,
        "checkpoint": checkpoint.name,
        "num_blocks": model.num_blocks,
        "timesteps": stepper.timesteps,
        "has_uncertainty": has_uncertainty,
        "uem_clamps": has_uncertainty and model.uem is not None and model.uem.clamps,
        "policy_needs_uncertainty": chosen.needs_uncertainty,
        "cost": sampling_cost(model, chosen, stepper.timesteps, guidance).to_json(),
        "device": device_name(where),
        "threads": torch.get_num_threads(),
        "dtype": "bfloat16" if where.type == "cuda" else "float32",
        "versions": versions(),
    }
    _claim(folder, settings, meta)
    todo = [p for i, p in enumerate(parts) if i % world == rank and not part_is_complete(folder, i)]
    writer = TraceWriter(folder, stepper.timesteps, model.num_blocks, {p: i for i, p in enumerate(parts)})
    stream: Iterable[Step] = sample(model, num_samples, solver=stepper, parts=todo, **stream_settings)
    try:
        for step in stream:
            if step.step == len(stepper.timesteps) - 1:  # a part is about to be written
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
        raise UserError(_cannot_write(folder, error)) from None
    if mine := [number for number in maps if number % world == rank]:
        write_maps(read_trace(folder), mine, checkpoint, device, on_step, cancelled)
    return folder


def _process() -> tuple[int, int]:
    """Which process this is, and of how many, as torchrun says. Raises UserError when there is no such process."""
    rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UserError(f"RANK is {rank!r} of WORLD_SIZE {world!r}, expected 0 ≤ RANK < WORLD_SIZE in the environment")
    return int(rank), int(world)


def _cannot_write(folder: AnyPath, error: OSError) -> str:
    """The sentence for a disk that is full, or gone."""
    forbidden = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return (
        f"{folder} cannot be written any more ({error.strerror or error}): what was complete is kept and can be read; "
        f"{'make it writable' if forbidden else 'make room'}, then run the same command to go on"
    )


def _check_claim(folder: AnyPath) -> None:
    """Raises UserError when trace.json, and with it most likely all else, is gone."""
    if not (folder / "trace.json").exists():
        raise UserError(f"{folder} was removed while it was written: run the same command again")


def _claim(folder: AnyPath, settings: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write trace.json, or check that the one there describes the same trace."""
    path = folder / "trace.json"
    if path.exists():
        theirs = read_json(path)
        differs = [key for key, value in settings.items() if theirs.get(key) != value]
        if differs:
            raise UserError(
                f"{folder} holds another trace (different: {', '.join(differs)}): "
                "repeat its settings to resume, or choose another --out"
            )
        return
    if any(folder.glob("part-*.parquet")):
        raise UserError(
            f"{folder} holds parts of a trace whose trace.json is gone: remove the folder, or choose another --out"
        )
    try:
        write_json(path, meta)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}): choose another --out") from None
