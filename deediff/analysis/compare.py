"""Traces beside each other: what exits save, promised and measured, and how far they move the images."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from deediff.traces.reader import Trace

PROTOCOL = ("solver", "timesteps", "eta", "seed", "checkpoint_sha256")  # equal: same noise, same full network
MACHINE = ("batch_size", "device", "threads", "dtype")  # equal as well: seconds can be compared


def _same(a: Trace, b: Trace, keys: tuple[str, ...]) -> bool:
    return all(a.meta.get(key) == b.meta.get(key) for key in keys)


def _images(trace: Trace, numbers: range) -> dict[int, bytes]:
    """Sample number → PNG, where there is one."""
    table = trace.samples(numbers)
    return {sample: png for sample, png in zip(table["sample"], table["png"], strict=True) if png is not None}


def _pixels(png: bytes) -> NDArray[np.float32]:
    return np.asarray(Image.open(io.BytesIO(png)), dtype=np.float32)


def image_change(trace: Trace, full: Trace, batch: int = 256) -> float | None:
    """Mean absolute difference in grey levels (0 … 255) from the full network's images of the same seeds.

    None when one of them has no images.
    """
    count = min(int(trace.meta["num_samples"]), int(full.meta["num_samples"]))
    total, images = 0.0, 0
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        mine, theirs = (_images(t, numbers) for t in (trace, full))
        for sample in mine.keys() & theirs.keys():
            total += float(np.abs(_pixels(mine[sample]) - _pixels(theirs[sample])).mean())
            images += 1
    return total / images if images else None


def comparison_table(
    traces: list[Trace],
    change: Callable[[Trace, Trace], float | None] = image_change,  # of a trace from its full network's; may remember
) -> pd.DataFrame:
    """One row per trace; speed-up, efficiency and change need a `never` trace of the same protocol among them.

    efficiency = speed-up × (GFLOPs / GFLOPs of the full network): 1 when every saved FLOP is saved time.
    """
    rows: list[dict[str, Any]] = []
    for trace in traces:
        meta = trace.meta
        never = [t for t in traces if t.meta["policy"] == "never" and _same(t, trace, PROTOCOL)]
        never.sort(key=lambda t: t.meta["record"] != "exit")  # one that evaluated no UEM, if there is one
        full = never[0] if never else None
        seconds = meta["wall_seconds"] / meta["num_samples"] if meta.get("wall_seconds") else None
        speed_up = None
        if full is not None and seconds and full.meta.get("wall_seconds") and _same(full, trace, MACHINE):
            speed_up = full.meta["wall_seconds"] / full.meta["num_samples"] / seconds
        gflops = trace.cost.mean_gflops(trace.summary.exits, with_uem=meta["policy_needs_uncertainty"])
        rows.append(
            {
                "trace": trace.path.name,
                "policy": meta["policy"] + (", recalibrated u" if meta.get("recalibration_sha256") else ""),
                "solver": meta.get("solver"),
                "steps": len(trace.timesteps),
                "images": int(trace.summary.samples),
                "layer_ratio": trace.cost.layer_ratio(trace.summary.exits),
                "gflops_per_step": gflops,
                "seconds_per_image": seconds,
                "speed_up": speed_up,
                "efficiency": None if speed_up is None else speed_up * gflops / trace.cost.full,
                "image_change": None if full is None else change(trace, full),
            }
        )
    return pd.DataFrame(rows)
