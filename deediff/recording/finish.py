"""Merge the parts of a trace once all of them are written."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.recording.parts import part_is_complete
from deediff.storage import AnyPath, leftovers, open_folder, read_table
from deediff.traces.meta import TraceMeta, read_meta
from deediff.traces.schema import rows_file, summary_file
from deediff.traces.summary import Summary


def finish(folder: AnyPath, num_parts: int) -> bool:
    """Merge the summaries and mark the trace complete, once every part is there.

    Safe to call twice, and by several processes at once: one that finds the trace complete returns.
    """
    folder = open_folder(folder)  # refreshes the listing: other processes write too
    if not all(part_is_complete(folder, part) for part in range(num_parts)):
        return False
    try:
        meta = read_meta(folder / "trace.json")
        if meta.complete:  # a damaged part was written again; a readable summary already counts it
            _restore_summary(folder, num_parts, meta)
        else:
            total = Summary.empty(len(meta.timesteps), meta.num_blocks)
            for part in range(num_parts):
                total += _part_summary(folder, part, meta)
            found = headline(total, meta)
            if (seconds := _wall_seconds(folder, num_parts)) is not None:
                found["wall_seconds"] = seconds
            if read_json(folder / "trace.json").get("complete"):
                return True
            if meta.uem_clamps:
                found["clamped"] = _count_clamped(folder, num_parts)
            total.save(summary_file(folder))
            write_json(folder / "trace.json", {**meta.raw, **found, "complete": True})
    except (UserError, OSError):
        if read_json(folder / "trace.json").get("complete"):  # another process finished first
            return True
        raise
    killed = leftovers(folder, "part-", "samples-", "summary", "timing-", "trace.json")
    for path in [*folder.glob("summary-*.npz"), *folder.glob("timing-*.json"), *killed]:
        with suppress(FileNotFoundError):  # not missing_ok: another process may delete between its check and its call
            path.unlink()
    return True


def _wall_seconds(folder: AnyPath, num_parts: int) -> float | None:
    """Sum over all parts; None where one is missing."""
    timings: list[AnyPath] = sorted(folder.glob("timing-*.json"), key=str)
    try:
        return sum(read_json(path)["seconds"] for path in timings) if len(timings) == num_parts else None
    except (UserError, KeyError):  # these files are not synced: a power failure may leave an empty one
        return None


def _count_clamped(folder: AnyPath, num_parts: int) -> dict[str, int]:
    """Number of u clamped to [0, 1] (exactly 0 or 1, from UEMs without a sigmoid), and of all u."""
    cut = total = 0
    for part in range(num_parts):
        u = read_table(rows_file(folder, part), columns=["uncertainty"])["uncertainty"].combine_chunks().flatten()
        values = u.to_numpy(zero_copy_only=False)
        cut += int(((values == 0) | (values == 1)).sum())
        total += int((~np.isnan(values)).sum())
    return {"count": cut, "of": total}


def _restore_summary(folder: AnyPath, num_parts: int, meta: TraceMeta) -> None:
    """Recompute the summary from the rows if it is missing or damaged."""
    try:
        Summary.load(summary_file(folder))
    except UserError:
        total = Summary.empty(len(meta.timesteps), meta.num_blocks)
        for part in range(num_parts):
            total += _summary_of_rows(folder, part, meta)
        total.save(summary_file(folder))


def _part_summary(folder: AnyPath, part: int, meta: TraceMeta) -> Summary:
    """The summary of a part; recomputed from its rows if it is missing or damaged."""
    try:
        return Summary.load(summary_file(folder, part))
    except UserError:
        return _summary_of_rows(folder, part, meta)


def _summary_of_rows(folder: AnyPath, part: int, meta: TraceMeta) -> Summary:
    steps, blocks = len(meta.timesteps), meta.num_blocks
    rows = read_table(rows_file(folder, part))

    def values(column: str) -> NDArray[np.float32] | None:
        if column not in rows.column_names or rows[column].null_count:
            return None
        return rows[column].combine_chunks().flatten().to_numpy().reshape(-1, steps, blocks)

    exit_layer = rows["exit_layer"].to_numpy().reshape(-1, steps)
    total = Summary.empty(steps, blocks).add(exit_layer, values("uncertainty"), values("deviation"))
    if not meta.has_memory:
        return total
    return total.add_memory(*(rows[name].to_numpy().reshape(-1, steps) for name in ("signal", "since_full")))


def headline(summary: Summary, meta: TraceMeta) -> dict[str, Any]:
    """Layer ratio and mean GFLOPs per step and image, from the counted exits."""
    return {
        "layer_ratio": meta.cost.layer_ratio(summary.exits),
        "mean_gflops": meta.cost.mean_gflops(summary.exits, with_uem=meta.policy_needs_uncertainty),
        "full_gflops": meta.cost.full,
    }
