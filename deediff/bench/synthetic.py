"""A synthetic trace of 50 000 samples, written in a second: its summary counts all of them, a few parts hold rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.cost.cost import Cost
from deediff.json_files import write_json
from deediff.recording.finish import headline
from deediff.recording.parts import Part, write_part
from deediff.traces.meta import TraceMeta
from deediff.traces.schema import FORMAT_VERSION, summary_file
from deediff.traces.summary import Summary

PART = 64  # samples


def write_synthetic(
    folder: Path,
    cost: Cost,
    image_shape: tuple[int, int, int],
    samples: int = 50_000,
    steps: int = 1000,
    parts: int = 3,  # parts on disk, with rows and images; at least 1
) -> Path:
    """Write a complete trace, recorded in full, whose u falls with depth and rises towards t = 0.

    The summaries of the parts on disk are added up in turn until `samples` are counted, so that the summary has the
    same size and file as one of that many sampled images.
    """
    rng, timesteps, blocks = np.random.default_rng(0), list(range(steps - 1, -1, -1)), len(cost.blocks)
    summaries = []
    for part in range(parts):
        u = _uncertainty(rng, PART, steps, blocks)
        exits = np.full((PART, steps), blocks, np.int8)
        images = rng.integers(0, 256, (PART, *image_shape), dtype=np.uint8)
        samples_of_part = range(part * PART, (part + 1) * PART)
        write_part(folder, part, Part(samples_of_part, timesteps, exits, u, None, images, blocks))
        summaries.append(Summary.load(summary_file(folder, part)))
        summary_file(folder, part).unlink()
    total = Summary.empty(steps, blocks)
    for turn in range(samples // PART):
        total += summaries[turn % parts]
    total.save(summary_file(folder))
    meta: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "complete": True,
        "policy": "never",
        "solver": "ddpm",
        "steps": steps,
        "seed": 0,
        "num_samples": int(total.samples),
        "batch_size": PART,
        "record": "full",
        "num_blocks": blocks,
        "timesteps": timesteps,
        "has_uncertainty": True,
        "policy_needs_uncertainty": False,
        "cost": cost.to_json(),
    }
    write_json(folder / "trace.json", {**meta, **headline(total, TraceMeta.from_json(meta))})
    return folder


def _uncertainty(rng: np.random.Generator, samples: int, steps: int, blocks: int) -> NDArray[np.float32]:
    """(B, S, N) around a plane over depth and time, so that every threshold from 0 to 0.5 changes some exits."""
    depth, time = np.linspace(0.35, 0.1, blocks), np.linspace(-0.05, 0.1, steps)[:, None]
    u = depth + time + rng.normal(0, 0.05, (samples, steps, blocks))
    return u.clip(0.001, 0.999).astype(np.float32)
