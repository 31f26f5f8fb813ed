"""The parts of a trace: whole samples each, readable alone; and what is done once all of them are there."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from deediff.cost.cost import Cost
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.storage import AnyPath, leftovers, open_folder, read_metadata, read_table, write_atomically
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
                total += _part_summary(folder, part, meta)
            if (seconds := _wall_seconds(folder, num_parts)) is not None:
                meta["wall_seconds"] = seconds
            if read_json(folder / "trace.json").get("complete"):
                return True
            if meta.get("uem_clamps"):
                meta["clamped"] = _count_clamped(folder, num_parts)
            total.save(summary_file(folder))
            write_json(folder / "trace.json", {**meta, **headline(total, meta), "complete": True})
    except (UserError, OSError):
        if read_json(folder / "trace.json").get("complete"):  # another process was faster and has cleaned up
            return True
        raise
    killed = leftovers(folder, "part-", "samples-", "summary", "timing-", "trace.json")
    for path in [*folder.glob("summary-*.npz"), *folder.glob("timing-*.json"), *killed]:
        with suppress(FileNotFoundError):  # missing_ok looks first at a URL, and another process may come between
            path.unlink()
    return True


def _wall_seconds(folder: AnyPath, num_parts: int) -> float | None:
    """Of all parts together; None where that of one is not known."""
    timings: list[AnyPath] = sorted(folder.glob("timing-*.json"), key=str)
    try:
        return sum(read_json(path)["seconds"] for path in timings) if len(timings) == num_parts else None
    except (UserError, KeyError):  # these files alone are not synced: a loss of power may leave an empty one
        return None


def _count_clamped(folder: AnyPath, num_parts: int) -> dict[str, int]:
    """How many u a UEM without a sigmoid had cut to [0, 1]: those that are exactly 0 or 1; of how many."""
    cut = total = 0
    for part in range(num_parts):
        u = read_table(rows_file(folder, part), columns=["uncertainty"])["uncertainty"].combine_chunks().flatten()
        values = u.to_numpy(zero_copy_only=False)
        cut += int(((values == 0) | (values == 1)).sum())
        total += int((~np.isnan(values)).sum())
    return {"count": cut, "of": total}


def _restore_summary(folder: AnyPath, num_parts: int, meta: dict[str, Any]) -> None:
    """Add the summary up again from the rows, if it is missing or damaged."""
    try:
        Summary.load(summary_file(folder))
    except UserError:
        total = Summary.empty(len(meta["timesteps"]), meta["num_blocks"])
        for part in range(num_parts):
            total += _summary_of_rows(folder, part, meta)
        total.save(summary_file(folder))


def _part_summary(folder: AnyPath, part: int, meta: dict[str, Any]) -> Summary:
    """What was written before the rows of a part; added up from them again where it is missing or damaged."""
    try:
        return Summary.load(summary_file(folder, part))
    except UserError:
        return _summary_of_rows(folder, part, meta)


def _summary_of_rows(folder: AnyPath, part: int, meta: dict[str, Any]) -> Summary:
    steps, blocks = len(meta["timesteps"]), meta["num_blocks"]
    rows = read_table(rows_file(folder, part))

    def values(column: str) -> NDArray[np.float32] | None:
        if column not in rows.column_names or rows[column].null_count:
            return None
        return rows[column].combine_chunks().flatten().to_numpy().reshape(-1, steps, blocks)

    exit_layer = rows["exit_layer"].to_numpy().reshape(-1, steps)
    return Summary.empty(steps, blocks).add(exit_layer, values("uncertainty"), values("deviation"))


def headline(summary: Summary, meta: dict[str, Any]) -> dict[str, Any]:
    """Layer ratio and mean GFLOPs per step and image, from the counted exits."""
    cost = Cost.from_json(meta["cost"])
    evaluates = meta["policy_needs_uncertainty"]
    return {
        "layer_ratio": cost.layer_ratio(summary.exits),
        "mean_gflops": cost.mean_gflops(summary.exits, with_uem=evaluates),
        "full_gflops": cost.full,
    }
