"""The comparison table of traces: cost, measured seconds, change of the images, quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deediff.analysis.origin import Origin, origin_of
from deediff.analysis.published import published_for
from deediff.quality.results import Quality, read_quality
from deediff.traces.images import decode_png
from deediff.traces.pairing import full_twin, speed_up
from deediff.traces.reader import Trace

COLUMNS = {
    "trace": "name of the trace's folder",
    "model": "preset of the network, or its shape",
    "uem": "UEM, and its scope",
    "strategy": "backbone while the exits were trained: frozen, finetuned or scratch",
    "losses": "3: Eq. 4, 7 and 8; 4: with Eq. 10",
    "policy": "exit policy",
    "solver": "solver of the reverse process",
    "steps": "denoising steps",
    "images": "N, number of images",
    "layer_ratio": "mean exit layer / number of blocks",
    "gflops_per_step": "mean per image and step: 2 × GMACs, attention products and UEMs included",
    "gflops_per_step_without_attention": "the same without the attention products, as most published tables count",
    "gflops_per_image": "over all steps",
    "seconds_per_image": "measured, over all steps",
    "device": "device of the seconds",
    "speed_up": "seconds of the full network / seconds, on the same machine",
    "efficiency": "speed-up × GFLOPs / GFLOPs of the full network: 1 when time is saved in proportion to FLOPs",
    "image_change": "mean absolute difference in grey levels (0 … 255) from the full network's images of equal seeds",
    # For each evaluated metric M, named by the differences where M was evaluated under several protocols:
    # M, M_low, M_high (95 % interval), M_floor (held-out real images at the same N), M_floor_spread (its SD).
    "quality_protocol": "extractor, reference, N, interval and floor of each metric, one per line",
    # Only where a published row has exactly the configuration of one of the traces:
    "published_layer_ratio": "as published for this configuration",
    "published_gflops_per_step_without_attention": "the same",
    "published_fid": "the same; another protocol than any of ours",
    "published_source": "the published table",
}
TEXT = (
    "trace",
    "model",
    "uem",
    "strategy",
    "losses",
    "policy",
    "solver",
    "device",
    "quality_protocol",
    "published_source",
)


def _images(trace: Trace, numbers: range) -> dict[int, bytes]:
    """Sample number → PNG, where there is one."""
    table = trace.samples(numbers)
    return {sample: png for sample, png in zip(table["sample"], table["png"], strict=True) if png is not None}


def _pixels(png: bytes) -> NDArray[np.float32]:
    return decode_png(png).astype(np.float32)


def image_change(trace: Trace, full: Trace, batch: int = 256) -> float | None:
    """Mean absolute difference in grey levels (0 … 255) from the full network's images of the same seeds.

    None when one of them has no images.
    """
    count = min(trace.meta.num_samples, full.meta.num_samples)
    total, images = 0.0, 0
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        mine, theirs = (_images(t, numbers) for t in (trace, full))
        for sample in mine.keys() & theirs.keys():
            total += float(np.abs(_pixels(mine[sample]) - _pixels(theirs[sample])).mean())
            images += 1
    return total / images if images else None


def quality_of(trace: Trace) -> list[Quality]:
    """Results of `deediff evaluate`. Raises UserError when its file is damaged."""
    return read_quality(trace.path)


def comparison_table(
    traces: Sequence[Trace],
    change: Callable[[Trace, Trace], float | None] = image_change,  # of a trace from its full network's; may remember
    quality: Callable[[Trace], Sequence[Quality]] = quality_of,  # likewise
) -> pd.DataFrame:
    """One row per trace, the columns those of COLUMNS; what is not known is missing (NaN, None).

    Speed-up, efficiency and change need a `never` trace of the same protocol among the traces. Those of quality
    and of others' results are there only where a trace has one. Values of different extractors, references or
    N never share a column.
    """
    origins = [origin_of(trace) for trace in traces]
    rows = [_cost_row(trace, origin, traces, change) for trace, origin in zip(traces, origins, strict=True)]
    results = [list(quality(trace)) for trace in traces]
    names = column_names([result for found in results for result in found])
    for row, found in zip(rows, results, strict=True):
        for name in names.values():  # in every row, so that the columns keep together
            row |= dict.fromkeys((name, *(f"{name}_{part}" for part in PARTS)))
        for result in found:
            name = names[result.protocol]
            row |= {name: result.value, **{f"{name}_{part}": getattr(result, part) for part in PARTS}}
        if names:
            row["quality_protocol"] = "\n".join(protocol_in_words(result) for result in found) or None
    lines = [published_for(trace, origin) for trace, origin in zip(traces, origins, strict=True)]
    for row, line in zip(rows, lines, strict=True):
        if any(lines):
            row["published_layer_ratio"] = line and line.layer_ratio
            row["published_gflops_per_step_without_attention"] = line and line.gflops
            row["published_fid"] = line and line.fid
            row["published_source"] = line and line.table
    table = pd.DataFrame(rows)
    numbers = [column for column in table if column not in TEXT]
    return table.astype({column: float for column in numbers if table[column].isna().any()})


PARTS = ("low", "high", "floor", "floor_spread")  # columns that go with a metric


def column_names(results: Sequence[Quality]) -> dict[tuple[str, str, str, int], str]:
    """Protocol → column: the metric, and those of extractor, reference and N in which its protocols differ."""
    names = {}
    for result in sorted({r.protocol: r for r in results}.values(), key=lambda r: r.protocol):
        others = [r for r in results if r.metric == result.metric and r.protocol != result.protocol]
        words = []
        if any(r.extractor != result.extractor for r in others):
            words.append(result.extractor)
        if any(r.reference_key != result.reference_key for r in others):
            same_name = any(r.reference == result.reference and r.reference_key != result.reference_key for r in others)
            words.append(f"{result.reference} {result.reference_key[:8]}" if same_name else result.reference)
        if any(r.images != result.images for r in others):
            words.append(f"N = {result.images}")
        names[result.protocol] = f"{result.metric} ({', '.join(words)})" if words else result.metric
    return names


def protocol_in_words(result: Quality) -> str:
    """The protocol and the interval of a value."""
    floor = f"; floor: {result.floor_source}" if result.floor is not None else ""
    return (
        f"{result.metric}: {result.extractor}, {result.images} images against {result.reference_images} of "
        f"{result.reference}; interval: {result.interval}{floor}"
    )


def _cost_row(
    trace: Trace, origin: Origin, traces: Sequence[Trace], change: Callable[[Trace, Trace], float | None]
) -> dict[str, Any]:
    meta, exits = trace.meta, trace.summary.exits
    full, timed = full_twin(trace, traces), speed_up(trace, traces)
    faster = None if timed is None else timed[0]
    plain, with_uem = trace.cost.without_attention, meta.policy_needs_uncertainty
    gflops = trace.cost.mean_gflops(exits, with_uem)
    return {
        "trace": trace.path.name,
        "model": origin.model,
        "uem": origin.uem,
        "strategy": origin.strategy,
        "losses": origin.losses,
        "policy": meta.title + (", recalibrated u" if meta.recalibration_sha256 else ""),
        "solver": meta.solver,
        "steps": len(trace.timesteps),
        "images": int(trace.summary.samples),
        "layer_ratio": trace.cost.layer_ratio(exits),
        "gflops_per_step": gflops,
        "gflops_per_step_without_attention": None if plain is None else plain.mean_gflops(exits, with_uem),
        "gflops_per_image": gflops * len(trace.timesteps),
        "seconds_per_image": meta.seconds_per_image,
        "device": meta.device,
        "speed_up": faster,
        "efficiency": None if faster is None else faster * gflops / trace.cost.full,
        "image_change": None if full is None else change(trace, full),
    }
