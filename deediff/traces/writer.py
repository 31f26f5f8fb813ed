"""Writes a trace while sampling: part by part, resumable, any number of processes."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from deediff.analysis.cost import Cost, sampling_cost
from deediff.calibrations import recalibrate
from deediff.checkpoints import find_checkpoint, load_checkpoint, read_json, write_json
from deediff.datasets import to_uint8
from deediff.devices import choose_device, device_name, versions
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.sampling.registry import make_policy
from deediff.sampling.sampler import Record, Step, batches, sample
from deediff.storage import AnyPath, open_folder, read_metadata, read_table, write_atomically
from deediff.traces.maps import check_maps, write_maps
from deediff.traces.reader import read_trace
from deediff.traces.schema import (
    FORMAT_VERSION,
    SAMPLE_SCHEMA,
    row_schema,
    rows_file,
    samples_file,
    summary_file,
    with_deviation,
)
from deediff.traces.summary import Summary

ZSTD: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["step", "timestep", "exit_layer"]}
SPLIT = ["uncertainty.list.element", "deviation.list.element"]


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """(C,H,W) uint8 → PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def table_bytes(table: pa.Table, **options: Any) -> bytes:
    """The table as a Parquet file in memory."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def write_part(
    folder: AnyPath,
    part: int,
    samples: range,
    timesteps: list[int],
    exit_layer: NDArray[np.int8],  # (B, S)
    uncertainty: NDArray[np.float32] | None,  # (B, S, N); None: the trace holds no u
    deviation: NDArray[np.float32] | None,  # (B, S, N)
    images: NDArray[np.uint8] | None,  # (B, C, H, W)
    num_blocks: int,
) -> None:
    """Write one part: images and summary first, the rows (which mark it done) last."""
    count, steps = exit_layer.shape
    numbers = np.arange(samples.start, samples.stop, dtype=np.int32)
    pngs = [None] * count if images is None else [encode_png(image) for image in images]
    table = pa.table(
        [numbers, exit_layer.mean(axis=1, dtype=np.float32), pa.array(pngs, pa.binary())], schema=SAMPLE_SCHEMA
    )
    write_atomically(samples_file(folder, part), table_bytes(table, compression="zstd"))

    summary = Summary.empty(steps, num_blocks).add(exit_layer, uncertainty, deviation)
    summary.save(summary_file(folder, part))

    def lists(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=schema.field("uncertainty").type)

    schema = row_schema(num_blocks)
    columns: list[Any] = [
        np.repeat(numbers, steps),
        np.tile(np.arange(steps, dtype=np.int16), count),
        np.tile(np.asarray(timesteps, np.int16), count),
        exit_layer.reshape(-1),
        pa.nulls(count * steps, schema.field("uncertainty").type) if uncertainty is None else lists(uncertainty),
    ]
    if deviation is not None:
        schema = with_deviation(schema)
        columns.append(lists(deviation))
    rows = pa.table(columns, schema=schema)
    split = SPLIT if deviation is not None else SPLIT[:1]
    write_atomically(rows_file(folder, part), table_bytes(rows, use_byte_stream_split=split, **ZSTD))


def part_is_complete(folder: AnyPath, part: int) -> bool:
    """Whether its rows file stands, and it and the images written before it can be read."""
    try:
        read_metadata(rows_file(folder, part))
        read_metadata(samples_file(folder, part))
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def finish(folder: AnyPath, num_parts: int) -> bool:
    """Merge the summaries and mark the trace complete, once every part is there.

    Safe to call twice, and by several processes at once: whoever finds its work done steps back.
    """
    folder = open_folder(folder)  # sees what other processes have written meanwhile
    if not all(part_is_complete(folder, part) for part in range(num_parts)):
        return False
    try:
        meta = read_json(folder / "trace.json")
        if meta.get("complete"):  # a damaged part was redone; the merged summary counts it already, if it is sound
            _restore_summary(folder, num_parts, meta)
        else:
            total = Summary.empty(len(meta["timesteps"]), meta["num_blocks"])
            for part in range(num_parts):
                total += Summary.load(summary_file(folder, part))
            timings: list[AnyPath] = sorted(folder.glob("timing-*.json"), key=str)
            seconds = [read_json(path)["seconds"] for path in timings]
            if seconds:
                meta["wall_seconds"] = sum(seconds)
            if read_json(folder / "trace.json").get("complete"):
                return True
            total.save(summary_file(folder))
            write_json(folder / "trace.json", {**meta, **headline(total, meta), "complete": True})
    except UserError:
        if read_json(folder / "trace.json").get("complete"):  # another process was faster and has cleaned up
            return True
        raise
    for path in [*folder.glob("summary-*.npz"), *folder.glob("timing-*.json")]:
        with suppress(FileNotFoundError):  # missing_ok looks first at a URL, and another process may come between
            path.unlink()
    return True


def _restore_summary(folder: AnyPath, num_parts: int, meta: dict[str, Any]) -> None:
    """Add the summary up again from the rows, if it is missing or damaged."""
    try:
        Summary.load(summary_file(folder))
    except UserError:
        steps, blocks = len(meta["timesteps"]), meta["num_blocks"]
        total = Summary.empty(steps, blocks)
        for part in range(num_parts):
            rows = read_table(rows_file(folder, part))

            def values(column: str, rows: pa.Table = rows) -> NDArray[np.float32] | None:
                if column not in rows.column_names or rows[column].null_count:
                    return None
                return rows[column].combine_chunks().flatten().to_numpy().reshape(-1, steps, blocks)

            exit_layer = rows["exit_layer"].to_numpy().reshape(-1, steps)
            total.add(exit_layer, values("uncertainty"), values("deviation"))
        total.save(summary_file(folder))


def headline(summary: Summary, meta: dict[str, Any]) -> dict[str, Any]:
    """Layer ratio and mean GFLOPs per step and image, from the counted exits."""
    cost = Cost.from_json(meta["cost"])
    evaluates = meta["policy_needs_uncertainty"]
    return {
        "layer_ratio": cost.layer_ratio(summary.exits),
        "mean_gflops": cost.mean_gflops(summary.exits, with_uem=evaluates),
        "full_gflops": cost.full,
    }


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
            raise UserError(
                f"{self.folder} cannot be written any more ({error.strerror}): the parts before {part} are complete; "
                "make room, then run the same command to go on"
            ) from None
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
    chosen = make_policy(policy).prepared(model, stepper)
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
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > len(parts):
        raise UserError(
            f"{world} processes for {len(parts)} parts: use at most {len(parts)}, or a smaller --batch-size"
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
    for step in stream:
        writer.add(step)
        if on_step is not None:
            on_step(step)
    finish(folder, len(parts))
    if mine := [number for number in maps if number % world == rank]:
        write_maps(read_trace(folder), mine, checkpoint, device, on_step, cancelled)
    return folder


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
    try:
        write_json(path, meta)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}): choose another --out") from None
