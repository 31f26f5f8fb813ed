"""Read a trace. Incomplete files are ignored and listed in `problems`."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from deediff.cost.cost import Cost
from deediff.errors import UserError
from deediff.storage import AnyPath, open_folder, read_metadata, read_table
from deediff.traces.meta import TraceMeta, read_meta
from deediff.traces.schema import (
    SAMPLE_SCHEMA,
    THRESHOLDS,
    maps_file,
    rows_file,
    samples_file,
    summary_file,
)
from deediff.traces.summary import Summary
from deediff.traces.what_if import WhatIf, exits_at, lowest_answer, stop_of

MAPS_NAME = re.compile(r"maps-(\d+)\.npz")


@dataclass
class Trace:
    """One sampling job on disk, or at a URL. Only the summary is held in memory."""

    path: AnyPath
    meta: TraceMeta  # trace.json
    parts: list[int]  # numbers of the parts with rows
    image_parts: list[int]  # numbers of the parts with images
    problems: list[str] = field(default_factory=list)  # one sentence per ignored file

    @property
    def num_blocks(self) -> int:
        """N."""
        return self.meta.num_blocks

    @property
    def timesteps(self) -> list[int]:
        """(S,) diffusion t of each step."""
        return self.meta.timesteps

    @property
    def threshold(self) -> float | None:
        """τ of a plain threshold policy; None for every other policy, bounded thresholds included."""
        return self.meta.policy.threshold

    @property
    def cost(self) -> Cost:
        """GFLOPs of the sampled model."""
        return self.meta.cost

    @cached_property
    def summary(self) -> Summary:
        """Sums over all complete parts. Raises UserError when there is none."""
        if self.meta.complete:
            return Summary.load(summary_file(self.path))
        if not self.parts:
            raise UserError(f"{self.path} holds no complete part yet: resume the sampling command")
        total = Summary.empty(len(self.timesteps), self.num_blocks)
        for part in self.parts:
            total += Summary.load(summary_file(self.path, part))
        return total

    @cached_property
    def _left_by(self) -> NDArray[np.int32]:
        """(K, S, N) of the summary, computed once: each slider stop is then one look-up."""
        return self.summary.left_by()

    @cached_property
    def highest_threshold(self) -> float | None:
        """The stop above which no exit changes; None where none changes at any threshold."""
        summary = self.summary
        counts = summary.running_min.sum(axis=(0, 1)) if self.meta.signal_exit is None else summary.signals.sum(axis=0)
        filled = np.flatnonzero(counts[: len(THRESHOLDS)])
        return float(THRESHOLDS[filled[-1]]) if len(filled) else None

    @property
    def what_if_limit(self) -> tuple[float, str] | None:
        """The lowest threshold that `what_if` can answer, and why; None when it can answer none."""
        return lowest_answer(self)

    @property
    def why_no_what_if(self) -> str | None:
        """Why `what_if` can answer no threshold; None when it can answer some."""
        if self.what_if_limit is not None:
            return None
        if not self.meta.has_uncertainty:
            return "this trace holds no uncertainties, only exit layers"
        if len(self.cost.fixed_steps) == len(self.timesteps):
            return "its plan fixes the exit of every step"
        return f"u was recorded up to the exits of policy {self.meta.policy}"

    def what_if(self, threshold: float) -> WhatIf:
        """Exits under another threshold, from the summary alone; rounded to the nearest slider stop.

        Raises UserError when the trace holds no u, or was recorded with exits at a higher threshold.
        """
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}, expected a number in [0, 1]")
        if self.what_if_limit is None:
            raise UserError(f"{self.path}: no what-if, because {self.why_no_what_if}")
        lowest, reason = self.what_if_limit
        index = stop_of(threshold)
        if THRESHOLDS[index] < np.float32(lowest):
            raise UserError(f"{self.path} answers thresholds from {lowest:g} only ({reason})")
        exits = exits_at(self, self._left_by, index)
        return WhatIf(
            round(float(THRESHOLDS[index]), 3),
            exits,
            self.cost.layer_ratio(exits),
            self.cost.mean_gflops(exits, with_uem=self.meta.signal_exit is None or self.meta.policy_needs_uncertainty),
        )

    def _rows(self, part: int, columns: list[str]) -> pa.Table:
        return read_table(rows_file(self.path, part), columns=columns)

    def iter_exit_layers(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int8]]]:
        """Part by part: sample numbers (B,), exit layers (B, S)."""
        steps = len(self.timesteps)
        for part in self.parts:
            table = self._rows(part, ["sample", "exit_layer"])
            yield table["sample"].to_numpy()[::steps], table["exit_layer"].to_numpy().reshape(-1, steps)

    def exit_layers(self) -> NDArray[np.int8]:
        """(samples, steps) exit layers, in the order of sample numbers. Raises UserError without rows."""
        if not self.parts:
            raise UserError(f"{self.path} has no rows: only its summary and images can be read")
        return np.concatenate([layers for _, layers in self.iter_exit_layers()])

    def uncertainty(self, part: int) -> NDArray[np.float32]:
        """(B, S, N) of one part; NaN where no UEM was evaluated. Raises UserError if the trace holds no u."""
        if not self.meta.has_uncertainty:
            raise UserError(f"{self.path} holds no uncertainties, only exit layers")
        return self._per_layer(part, "uncertainty")

    def deviation(self, part: int) -> NDArray[np.float32]:
        """(B, S, N) RMS(g_i − ε_full) of one part. Raises UserError if the trace holds none."""
        if not self.meta.has_deviations:
            raise UserError(f"{self.path} holds no deviations: sample it with --record full --deviations")
        return self._per_layer(part, "deviation")

    def memory(self, part: int) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """(B, S) each, of one part: what the policy compared, NaN where it was not asked; steps since the last full
        evaluation, 0 where it was this step, −1 where there was none. Raises UserError if the trace holds neither.
        """
        if not self.meta.has_memory:
            raise UserError(f"{self.path} holds no signal: its policy {self.meta.policy} reads no earlier step")
        rows, steps = self._rows(part, ["signal", "since_full"]), len(self.timesteps)
        return rows["signal"].to_numpy().reshape(-1, steps), rows["since_full"].to_numpy().reshape(-1, steps)

    def _per_layer(self, part: int, column: str) -> NDArray[np.float32]:
        chunk = self._rows(part, [column])[column].combine_chunks()
        return chunk.flatten().to_numpy().reshape(-1, len(self.timesteps), self.num_blocks)

    def to_pandas(self, samples: slice | None = None) -> pd.DataFrame:
        """Rows as a data frame; `samples` selects a range of sample numbers."""
        start, stop, _ = (samples or slice(None)).indices(self.meta.num_samples)
        wanted = [("sample", ">=", start), ("sample", "<", stop)]
        parts = self._holding(range(start, stop), self.parts)
        tables = [read_table(rows_file(self.path, part), filters=wanted) for part in parts]
        return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame()

    def images(self, samples: range) -> list[bytes]:
        """PNG bytes of these samples; fewer where images are missing (an imported trace has none)."""
        return [png for png in self.samples(samples)["png"] if png is not None]

    def latents(self, samples: range) -> NDArray[np.float32]:
        """(M, C, H, W) latents of these samples, of a model of latents. Raises UserError where there are none."""
        found = self.samples(samples)
        if "latent" not in found or found["latent"].isna().any() or found.empty:
            raise UserError(f"{self.path} holds no latents of samples {samples.start} … {samples.stop - 1}")
        return np.stack([np.load(io.BytesIO(latent), allow_pickle=False) for latent in found["latent"]])

    def samples(self, wanted: Collection[int]) -> pd.DataFrame:
        """`sample`, `mean_exit_layer` and `png` (None in an imported trace) of those of these samples that exist.

        Ordered by sample number. Opens only the files that may hold one of them.
        """
        if isinstance(wanted, range):
            chosen: list[tuple[str, str, Any]] = [("sample", ">=", wanted.start), ("sample", "<", wanted.stop)]
        else:
            chosen = [("sample", "in", list(wanted))]
        files = [samples_file(self.path, part) for part in self._holding(wanted, self.image_parts)]
        tables = [read_table(file, filters=chosen) for file in files if file.exists()]
        return pa.concat_tables(tables or [SAMPLE_SCHEMA.empty_table()]).to_pandas()

    def _holding(self, wanted: Collection[int], parts: list[int]) -> list[int]:
        """The parts that may hold wanted samples: part p holds samples p·B … (p+1)·B − 1."""
        size = self.meta.batch_size
        if size is None:
            return parts
        if isinstance(wanted, range):
            return [part for part in parts if wanted.start < (part + 1) * size and part * size < wanted.stop]
        holding = {number // size for number in wanted}
        return [part for part in parts if part in holding]

    def iter_images(self) -> Iterator[tuple[NDArray[np.int64], list[bytes]]]:
        """Part by part: sample numbers (B,) and their PNG bytes, without samples whose image is missing."""
        for part in self.image_parts:
            table = read_table(samples_file(self.path, part), columns=["sample", "png"])
            table = table.filter(table["png"].is_valid())
            yield table["sample"].to_numpy().astype(np.int64), table["png"].to_pylist()

    @property
    def map_samples(self) -> list[int]:
        """The samples that have maps of u, ascending."""
        return sorted(int(match[1]) for f in self.path.glob("maps-*.npz") if (match := MAPS_NAME.fullmatch(f.name)))

    def maps(self, sample: int) -> NDArray[np.float32]:
        """(S, N, h, w) u over the image, NaN where no UEM was evaluated; rounded to float16 on disk.

        Raises UserError when this sample has no maps, or they are damaged.
        """
        file = maps_file(self.path, sample)
        try:
            with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as content:
                maps = content["maps"]
            if maps.shape[:2] != (len(self.timesteps), self.num_blocks) or maps.ndim != 4:
                raise ValueError(f"its shape is {maps.shape}")
        except FileNotFoundError:
            again = f"'deediff maps {self.path} --samples {sample}:{sample + 1}' adds them"
            raise UserError(f"{self.path} holds no maps of sample {sample}: {again}") from None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{file} is not a readable file of maps ({error}): delete it and sample again") from None
        return maps.astype(np.float32)

    def figure(self, name: str) -> Any:
        """One of the explorer's figures as a plotly figure: exits, mean-exit or uncertainty.

        The library draws nothing itself: whichever package provides the entry point `deediff.figures` does. Raises
        UserError for another name, where the trace lacks what it draws, and where no package provides any.
        """
        found = list(entry_points(group="deediff.figures"))
        if not found:
            raise UserError("no installed package draws figures: install deediff again, together with its explorer")
        return found[0].load()(self, name)

    def mean_exit_layers(self) -> NDArray[np.float32]:
        """(samples,) mean exit layer of each sample."""
        files = [samples_file(self.path, part) for part in self.image_parts]
        return np.concatenate([read_table(f, columns=["mean_exit_layer"])["mean_exit_layer"].to_numpy() for f in files])


def read_trace(path: str | AnyPath) -> Trace:
    """Open a trace folder, local or at any fsspec URL. Raises UserError when it is not one."""
    path = open_folder(path)
    meta = read_meta(path / "trace.json")
    trace = Trace(path, meta, parts=[], image_parts=[])
    files: list[AnyPath] = sorted(path.glob("*-*.parquet"), key=str)
    for file in files:
        match = re.fullmatch(r"(part|samples)-(\d+)\.parquet", file.name)
        if match is None:
            continue
        try:
            read_metadata(file)
        except (OSError, pa.ArrowInvalid):
            trace.problems.append(f"{file.name} is truncated and was ignored: run the same sampling command again")
            continue
        (trace.parts if match[1] == "part" else trace.image_parts).append(int(match[2]))
    if not meta.complete:
        trace.problems.append("this trace is not complete: run the same sampling command to resume")
        trace.image_parts = [part for part in trace.image_parts if part in trace.parts]
    return trace
