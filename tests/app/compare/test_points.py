"""Traces as points: families and axes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.views.compare.points import (
    Axis,
    Point,
    Reading,
    axes,
    change_axes,
    family_of,
    far_above,
    other_differences,
    points,
)
from deediff.cost.cost import Cost
from deediff.plans import Plan, PlanStep
from deediff.quality.results import Quality
from deediff.traces.meta import TraceMeta
from deediff.traces.reader import Trace

FID = Quality(
    "fid", "inception-v3", 10.0, 9.0, 12.0, "jackknife", 100, "cifar10-train", "abc", 50_000, 3.0, 0.5, "5 draws", "cpu"
)


def make_trace(name: str, policy: str = "threshold:0.1", steps: int = 4, run: str = "a", **meta: Any) -> Trace:
    """A trace of two blocks; all samples exit at layer 1 unless the policy is never."""
    cost = Cost(0.1, [1.0, 1.0], [0.0, 0.0], [0.2, 0.2], 0.2).to_json()
    common = {"solver": "ddim", "timesteps": list(range(steps))[::-1], "eta": 0.0, "seed": 0, "checkpoint_sha256": "x"}
    fixed = {
        "num_blocks": 2,
        "num_samples": 10,
        "record": "exit",
        "has_uncertainty": True,
        "policy_needs_uncertainty": policy != "never",
    }
    content = TraceMeta.from_json({**common, **fixed, "policy": policy, "cost": cost, **meta})
    trace = Trace(Path("runs") / run / "traces" / name, content, [], [])
    exits = np.zeros((steps, 3), np.int64)
    exits[:, 2 if policy == "never" else 1] = 10
    trace.__dict__["summary"] = type("Sums", (), {"exits": exits, "samples": np.int64(10)})
    return trace


def point(gflops: float, value: float, key: str = "r/p", family: str = "threshold", **more: Any) -> Any:
    run, reading, is_full = key.partition("/")[0], Reading(value, **more), family == "full network"
    return Point(key, run, family, key, is_full, gflops, None, 0.5, 10, reading)


@pytest.mark.parametrize(
    ("policy", "family", "label"),
    [
        ("threshold:0.1", "threshold · DDIM, 4 steps", "τ = 0.1"),
        ("threshold:0.1,min:3", "threshold, min 3 · DDIM, 4 steps", "τ = 0.1"),
        ("fixed:6", "fixed · DDIM, 4 steps", "layer 6"),
        ("excess:0.25", "excess · DDIM, 4 steps", "δ = 0.25"),
        ("budget:0.3@runs/a/traces/full", "budget · DDIM, 4 steps", "1.2 GFLOPs"),
        ("budget:0.26871234567891@runs/a/traces/full", "budget · DDIM, 4 steps", "1.075 GFLOPs"),
        ("dual:500:runs/b/checkpoints/7.safetensors", "dual · DDIM, 4 steps", "down to t = 500"),
        ("schedule:/tmp/static.json", "schedule static · DDIM, 4 steps", "static"),
        ("schedule:a/static-0.3.json", "schedule static · DDIM, 4 steps", "static-0.3"),
        ("schedule:ase", "schedule ase · DDIM, 4 steps", "ase"),
        ("never", "full network, DDIM", "4 steps"),
    ],
)
def test_a_family_is_a_policy_and_a_label_its_place_in_it(policy: str, family: str, label: str) -> None:
    assert family_of(make_trace("t", policy)) == (family, label)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=30))
def test_few_values_are_far_above_and_three_times_what_lies_below(values: list[float]) -> None:
    points = [point(1.0, value, str(k)) for k, value in enumerate(values)]
    beyond = [p.reading.value for p in far_above(points)]
    below = sorted(values)[: len(values) - len(beyond)]
    assert len(beyond) <= len(values) / 5
    assert not beyond or min(beyond) > 3 * max(below)
    scaled = [point(1.0, 2 * value, str(k)) for k, value in enumerate(values)]
    assert [p.key for p in far_above(scaled)] == [p.key for p in far_above(points)]


def test_fewer_steps_of_the_full_network_are_one_family_and_those_of_a_policy_are_not() -> None:
    assert family_of(make_trace("a", "never", 4))[0] == family_of(make_trace("b", "never", 2))[0]
    assert family_of(make_trace("a", steps=4))[0] != family_of(make_trace("b", steps=2))[0]
    again = make_trace("a", recalibration_sha256="y")
    assert family_of(again)[0] != family_of(make_trace("a"))[0]


def test_plans_of_one_run_are_a_family_by_name_and_those_of_the_full_network_another() -> None:
    exits = Plan((PlanStep(1, 0, "input"), PlanStep(0)), num_blocks=2, num_timesteps=4, name="cheap")
    full = replace(exits, steps=(PlanStep(1), PlanStep(0)), name="all")
    traces = [make_trace("t", "never", 2, plan=plan.to_json(), solver=plan.solver) for plan in (exits, full)]
    assert [family_of(trace) for trace in traces] == [
        ("plans, DPM-SOLVER++", "cheap"),
        ("plans of the full network, DPM-SOLVER++", "all"),
    ]
    assert [trace.meta.is_full for trace in traces] == [False, True]


def test_only_equal_protocols_share_an_axis() -> None:
    traces = [make_trace(name) for name in "abcd"]
    found = axes(
        traces,
        {
            "a/a": [FID, replace(FID, metric="kid", value=0.5)],
            "a/b": [replace(FID, value=20.0)],
            "a/c": [replace(FID, images=50)],
            "a/d": [replace(FID, extractor="clip")],
        },
    )
    shared = [sorted(axis.readings) for axis in found]
    assert shared == [["a/a", "a/b"], ["a/c"], ["a/d"], ["a/a"]]
    assert len({axis.label for axis in found}) == 4
    assert {key: reading.value for key, reading in found[0].readings.items()} == {"a/a": 10.0, "a/b": 20.0}


def test_a_change_is_measured_from_the_full_network_of_the_same_noise() -> None:
    same, other_seed = [make_trace("full", "never"), make_trace("a")], make_trace("b", seed=1)
    fewer = [make_trace("full2", "never", 2), make_trace("c", steps=2), make_trace("d", steps=2)]
    found = change_axes([*same, other_seed, *fewer])
    assert [(axis.full, sorted(axis.readings)) for axis in found] == [
        ("a/full2", ["a/c", "a/d", "a/full2"]),
        ("a/full", ["a/a", "a/full"]),
    ]


def test_what_differs_beside_the_exits_is_named() -> None:
    a, exits, fewer = make_trace("a", "never"), make_trace("b"), make_trace("c", steps=2, checkpoint_sha256="y")
    assert other_differences([a, exits]) == ""
    assert "also differ in steps and weights" in other_differences([a, fewer])
    assert "not start from the same noise" in other_differences([a, fewer, make_trace("d", seed=1)])


def test_cost_counts_every_step() -> None:
    traces = [make_trace("full", "never", wall_seconds=5.0), make_trace("a")]
    axis = Axis("fid", "FID", False, {"a/full": Reading(1.0), "a/a": Reading(2.0)})
    full, early = points(traces, axis)
    assert full.gflops == pytest.approx(4 * (0.1 + 1.0 + 1.0 + 0.2))
    assert early.gflops == pytest.approx(4 * (0.1 + 1.0 + 0.2))
    assert (full.seconds, early.seconds) == (0.5, None)
    assert (full.layer_ratio, early.layer_ratio) == (1.0, 0.5)
    assert (full.is_full, early.is_full) == (True, False)
