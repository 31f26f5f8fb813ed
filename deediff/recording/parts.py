"""Write one part of a trace: whole samples, readable without the other parts."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from deediff.storage import AnyPath, read_metadata, write_atomically
from deediff.traces.schema import (
    SAMPLE_SCHEMA,
    row_schema,
    rows_file,
    samples_file,
    summary_file,
    with_deviation,
    with_latent,
    with_memory,
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


@dataclass(frozen=True, eq=False)
class Part:
    """Whole samples of a trace: B samples, S steps, N blocks."""

    samples: range  # sample numbers
    timesteps: list[int]  # (S,)
    exit_layer: NDArray[np.int8]  # (B, S)
    uncertainty: NDArray[np.float32] | None = None  # (B, S, N); None: the trace holds no u
    deviation: NDArray[np.float32] | None = None  # (B, S, N) RMS(g_i − ε_full)
    images: NDArray[np.uint8] | None = None  # (B, C, H, W), of 1 or 3 channels
    num_blocks: int = 0  # N
    signal: NDArray[np.float32] | None = None  # (B, S) what the policy compared, NaN where it was not asked
    since_full: NDArray[np.int16] | None = None  # (B, S) steps since the last full evaluation; −1: none yet
    latents: NDArray[np.float32] | None = None  # (B, C, H, W), in place of images


def write_part(folder: AnyPath, number: int, part: Part) -> None:
    """Write images and summary first, then the rows: a part is complete when its rows file exists. Raises OSError."""
    steps = part.exit_layer.shape[1]
    write_atomically(samples_file(folder, number), table_bytes(_samples(part), compression="zstd"))
    summary = Summary.empty(steps, part.num_blocks).add(part.exit_layer, part.uncertainty, part.deviation)
    if part.signal is not None and part.since_full is not None:
        summary.add_memory(part.signal, part.since_full)
    summary.save(summary_file(folder, number))
    split = SPLIT if part.deviation is not None else SPLIT[:1]
    write_atomically(rows_file(folder, number), table_bytes(_rows(part), use_byte_stream_split=split, **ZSTD))


def _samples(part: Part) -> pa.Table:
    """One row per sample: its mean exit layer and its image."""
    numbers = np.arange(part.samples.start, part.samples.stop, dtype=np.int32)
    pngs = [None] * len(numbers) if part.images is None else [encode_png(image) for image in part.images]
    means = part.exit_layer.mean(axis=1, dtype=np.float32)
    columns = [numbers, means, pa.array(pngs, pa.binary())]
    if part.latents is None:
        return pa.table(columns, schema=SAMPLE_SCHEMA)
    latents = pa.array([_npy(latent) for latent in part.latents], pa.binary())
    return pa.table([*columns, latents], schema=with_latent(SAMPLE_SCHEMA))


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _rows(part: Part) -> pa.Table:
    """One row per (sample, step)."""
    count, steps = part.exit_layer.shape
    schema = row_schema(part.num_blocks)
    lists = schema.field("uncertainty").type  # N values of float32

    def column(values: NDArray[np.float32]) -> pa.FixedSizeListArray:  # (B, S, N) → B·S lists
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=lists)

    columns: list[Any] = [
        np.repeat(np.arange(part.samples.start, part.samples.stop, dtype=np.int32), steps),
        np.tile(np.arange(steps, dtype=np.int16), count),
        np.tile(np.asarray(part.timesteps, np.int16), count),
        part.exit_layer.reshape(-1),
        pa.nulls(count * steps, lists) if part.uncertainty is None else column(part.uncertainty),
    ]
    if part.deviation is not None:
        schema = with_deviation(schema)
        columns.append(column(part.deviation))
    if part.signal is not None and part.since_full is not None:
        schema = with_memory(schema)
        columns += [part.signal.reshape(-1), part.since_full.reshape(-1)]
    return pa.table(columns, schema=schema)


def part_is_complete(folder: AnyPath, part: int) -> bool:
    """Whether its rows file and the images file written before it exist and can be read."""
    try:
        read_metadata(rows_file(folder, part))
        read_metadata(samples_file(folder, part))
    except (OSError, pa.ArrowInvalid):
        return False
    return True
