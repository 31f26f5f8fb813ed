"""File names and Parquet schemas of a trace."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from deediff.storage import AnyPath

FORMAT_VERSION = 1

# The grid of thresholds that a summary answers exactly; float32, like u.
THRESHOLDS = (np.arange(201) * 0.005).astype(np.float32)


def row_schema(num_blocks: int) -> pa.Schema:
    """One row per (sample, step). u is NaN after the exit for `record="exit"`, null where a trace holds none."""
    return pa.schema(
        [
            pa.field("sample", pa.int32(), nullable=False),
            pa.field("step", pa.int16(), nullable=False),
            pa.field("timestep", pa.int16(), nullable=False),
            pa.field("exit_layer", pa.int8(), nullable=False),
            pa.field("uncertainty", pa.list_(pa.field("element", pa.float32()), num_blocks)),
        ],
        metadata={"format_version": str(FORMAT_VERSION)},
    )


def with_deviation(schema: pa.Schema) -> pa.Schema:
    """The schema plus RMS(g_i − ε_full) per layer."""
    return schema.append(pa.field("deviation", schema.field("uncertainty").type))


def with_memory(schema: pa.Schema) -> pa.Schema:
    """The schema plus what a policy with memory compared (NaN where it was not asked), and its memory's age."""
    return schema.append(pa.field("signal", pa.float32())).append(pa.field("since_full", pa.int16()))


SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("mean_exit_layer", pa.float32(), nullable=False),
        pa.field("png", pa.binary()),  # null in an imported trace
    ],
    metadata={"format_version": str(FORMAT_VERSION)},
)


def with_latent(schema: pa.Schema) -> pa.Schema:
    """The schema of samples plus the latent of each, an array (C,H,W) of float32 as an .npy file, in place of a PNG."""
    return schema.append(pa.field("latent", pa.binary()))


def rows_file(folder: AnyPath, part: int) -> AnyPath:
    """One row per (sample, step); written last, so its existence marks the part as complete."""
    return folder / f"part-{part:05d}.parquet"


def samples_file(folder: AnyPath, part: int) -> AnyPath:
    """One row per sample: its image."""
    return folder / f"samples-{part:05d}.parquet"


def maps_file(folder: AnyPath, sample: int) -> AnyPath:
    """Maps of u of one sample, where they were requested."""
    return folder / f"maps-{sample:05d}.npz"


def summary_file(folder: AnyPath, part: int | None = None) -> AnyPath:
    """The summary of one part, or of the complete trace."""
    return folder / ("summary.npz" if part is None else f"summary-{part:05d}.npz")
