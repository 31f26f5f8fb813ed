"""Traces made of given exit layers, u and deviations, and the commands on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deediff.cli import main
from deediff.cost.cost import Cost
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import spaced_timesteps
from deediff.json_files import write_json
from deediff.recording.finish import finish
from deediff.recording.parts import Part, write_part
from deediff.traces.reader import Trace, read_trace

COST = Cost(embed=0.5, blocks=[1.0] * 13, uems=[0.1] * 13, heads=[0.2] * 13, decode=0.2)
STATIC_COST = COST.at_exit(with_uem=False)


def make_trace(
    folder: Path, exits: np.ndarray, u: np.ndarray | None = None, deviation: np.ndarray | None = None, **meta: object
) -> Trace:
    """Up to two parts of DDIM steps with these exits (samples, steps), u and deviations (samples, steps, 13)."""
    samples, steps = exits.shape
    timesteps = spaced_timesteps(Schedule(), steps, "trailing")
    fields = {
        "format_version": 1,
        "complete": False,
        "num_blocks": 13,
        "num_samples": samples,
        "timesteps": timesteps,
        "policy": "threshold:0.1",
        "record": "exit" if u is None else "full",
        "has_uncertainty": u is not None,
        "deviations": deviation is not None,
        "policy_needs_uncertainty": True,
        "cost": COST.to_json(),
    }
    write_json(folder / "trace.json", {**fields, **meta})
    parts = [range(1), range(1, samples)] if samples > 1 else [range(1)]
    for part, numbers in enumerate(parts):
        mine = slice(numbers.start, numbers.stop)
        values = [None if x is None else x[mine].astype(np.float32) for x in (u, deviation)]
        write_part(folder, part, Part(numbers, timesteps, exits[mine].astype(np.int8), *values, None, 13))
    finish(folder, len(parts))
    return read_trace(folder)


def counts_of(exits: np.ndarray) -> np.ndarray:
    """(samples, steps) → (steps, 14)."""
    return (exits[:, :, None] == np.arange(14)).sum(axis=0)


def command_json(capsys: pytest.CaptureFixture[str], *args: object) -> dict:
    assert main([*map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)
