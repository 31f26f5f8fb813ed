"""The parts of a trace: whole samples each, readable alone; and what is done once all of them are there."""

from __future__ import annotations

import io
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
