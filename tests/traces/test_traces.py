"""Traces: rows, summary and metadata are those of the sampler, and can be read back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import deediff
from deediff.analysis.compare import comparison_table
from deediff.analysis.trends import mean_exit_layer, threshold_table, timestep_share
from deediff.cost.cost import Cost
from deediff.datasets import to_uint8
from deediff.errors import UserError
from deediff.policies import make_policy
from deediff.traces import schema
from deediff.traces.schema import THRESHOLDS
from deediff.traces.summary import Summary
from tests.conftest import TAU, record


def test_rows_hold_what_the_sampler_yielded(run_folder: Path, exits: deediff.Trace) -> None:
    model = deediff.load(run_folder)
    steps = list(deediff.sample(model, num_samples=10, steps=5, batch_size=4, policy=f"threshold:{TAU}"))
    rows = exits.to_pandas()
    assert list(rows.columns) == ["sample", "step", "timestep", "exit_layer", "uncertainty"]
    assert len(rows) == 50
    for step in steps:
        for k, layer, u in zip(step.samples, step.exit_layer, step.uncertainty, strict=True):
            row = rows[(rows["sample"] == k) & (rows["step"] == step.step)].iloc[0]
            assert row["timestep"] == step.timestep
            assert row["exit_layer"] == layer
            np.testing.assert_array_equal(np.asarray(row["uncertainty"]), u.numpy())
    last = torch.cat([to_uint8(s.x) for s in steps if s.step == 4]).numpy()
    pngs = exits.images(range(10))
    for image, png in zip(last, pngs, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), image.transpose(1, 2, 0))


def test_columns_have_the_types_people_script_against(exits: deediff.Trace) -> None:
    table = pq.read_schema(exits.path / "part-00000.parquet")
    assert [str(table.field(i).type) for i in range(4)] == ["int32", "int16", "int16", "int8"]
    assert str(table.field("uncertainty").type) == "fixed_size_list<element: float>[13]"
    assert table.metadata[b"format_version"] == b"1"


def test_python_surface(exits: deediff.Trace) -> None:
    assert exits.exit_layers().shape == (10, 5)
    assert exits.exit_layers().dtype == np.int8
    np.testing.assert_array_equal(exits.to_pandas(slice(3, 5))["sample"].unique(), [3, 4])
    assert len(exits.images(range(2, 6))) == 4
    np.testing.assert_allclose(exits.mean_exit_layers(), exits.exit_layers().mean(axis=1), rtol=1e-6)
    assert exits.uncertainty(1).shape == (4, 5, 13)
    assert exits.problems == []
    assert exits.meta.complete is True


def count_over_rows(trace: deediff.Trace, threshold: float) -> np.ndarray:
    """(S, N+1): the definition of a threshold exit, row by row."""
    rows, steps = trace.to_pandas(), len(trace.timesteps)
    counts = np.zeros((steps, 14), np.int64)
    for step, u in zip(rows["step"], rows["uncertainty"], strict=True):
        below = [i for i, value in enumerate(u) if value <= np.float32(threshold)]
        counts[step, below[0] if below else 13] += 1
    return counts


@pytest.mark.parametrize("index", [0, 30, 60, 80, 81, 82, 90, 100, 120, 200])
def test_what_if_equals_a_count_over_rows(full: deediff.Trace, index: int) -> None:
    threshold = float(THRESHOLDS[index])
    answer, counts = full.what_if(threshold), count_over_rows(full, threshold)
    np.testing.assert_array_equal(answer.exits, counts)
    assert answer.layer_ratio == pytest.approx((counts.sum(0) * np.arange(14)).sum() / 50 / 13)
    cost = full.cost.at_exit(with_uem=True)
    assert answer.gflops == pytest.approx((counts.sum(0) * cost).sum() / 50)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 200))
def test_summary_counts_first_crossings_even_when_u_rises_again(seed: int, index: int) -> None:
    rng = np.random.default_rng(seed)
    u = rng.random((6, 2, 4), dtype=np.float32)
    u[0, 0, :2] = THRESHOLDS[index]  # exactly on the threshold counts as below
    below = u <= THRESHOLDS[index]
    first = np.where(below.any(-1), below.argmax(-1), 4)
    expected = np.stack([(first == layer).sum(0) for layer in range(5)], axis=1)
    halves = Summary.empty(2, 4).add(first[:3].astype(np.int8), u[:3])
    halves += Summary.empty(2, 4).add(first[3:].astype(np.int8), u[3:])
    np.testing.assert_array_equal(halves.exits_of(halves.left_by()[index]), expected)
    np.testing.assert_array_equal(halves.exits, expected)
    np.testing.assert_allclose(halves.mean_uncertainty(), u.mean(0), rtol=1e-6)


def test_a_trace_with_exits_answers_higher_thresholds_only(exits: deediff.Trace) -> None:
    np.testing.assert_array_equal(exits.what_if(TAU).exits, exits.summary.exits)
    for threshold in (TAU + 0.05, TAU + 0.2, 1.0):
        np.testing.assert_array_equal(exits.what_if(threshold).exits, count_over_rows(exits, threshold))
    with pytest.raises(UserError, match=r"answers thresholds from 0\.4 only"):
        exits.what_if(TAU - 0.05)


def test_a_trace_without_u_says_why_it_answers_none(run_folder: Path) -> None:
    trace = record(run_folder, "never", policy="never")
    assert trace.why_no_what_if == "this trace holds no uncertainties, only exit layers"
    with pytest.raises(UserError, match="no what-if, because this trace holds no uncertainties"):
        trace.what_if(0.1)


def test_headline_counts_every_uem_on_the_way(run_folder: Path, exits: deediff.Trace, full: deediff.Trace) -> None:
    layers, cost = exits.exit_layers().astype(int), exits.cost
    by_hand = [
        cost.embed
        + sum(cost.blocks[:i])
        + sum(cost.uems[: min(i, 12) + 1])  # UEM 0 … i were evaluated; the one before block 12 is the last
        + (cost.heads[i] if i < 13 else cost.decode)
        for i in layers.reshape(-1)
    ]
    assert exits.meta.mean_gflops == pytest.approx(np.mean(by_hand), rel=1e-9)
    assert exits.meta.layer_ratio == pytest.approx(layers.mean() / 13)
    assert full.meta.mean_gflops == pytest.approx(cost.full)  # 'never' asks no UEM


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a JSON array, expected an object"),
        pytest.param("[" * 100_000 + "]" * 100_000, "nested too deeply", id="deep"),
        ('{"format_version": 99}', "format_version is 99, expected 1"),
        ('{"format_version": 1}', "it is not a trace written by deediff"),
    ],
)
def test_a_damaged_trace_json_is_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    (tmp_path / "trace.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        deediff.read_trace(tmp_path)


def test_a_corrupt_summary_is_a_sentence(run_folder: Path) -> None:
    trace = record(run_folder, "corrupt")
    schema.summary_file(trace.path).write_bytes(b"not an archive")
    with pytest.raises(UserError, match="is not a readable summary"):
        _ = trace.summary


def test_trends(full: deediff.Trace) -> None:
    table = threshold_table(full, [0.3, 0.5])
    shares = table[[f"exit_{i}" for i in range(14)]].sum(axis=1)
    np.testing.assert_allclose(shares, 1)
    only_time = np.zeros((3, 14), np.int64)
    only_time[[0, 1, 2], [0, 5, 13]] = 7
    assert timestep_share(only_time) == pytest.approx(1)
    only_sample = np.zeros((3, 14), np.int64)
    only_sample[:, [2, 9]] = 5
    assert timestep_share(only_sample) == pytest.approx(0)
    np.testing.assert_allclose(mean_exit_layer(only_sample), 5.5)


def test_cost_survives_json(full: deediff.Trace) -> None:
    assert Cost.from_json(json.loads(json.dumps(full.cost.to_json()))) == full.cost


def test_a_trace_may_come_without_its_rows(run_folder: Path) -> None:
    """As for most included traces: summary and images are enough for estimates and pages."""
    trace = record(run_folder, "light")
    for rows in trace.path.glob("part-*.parquet"):
        rows.unlink()
    light = deediff.read_trace(trace.path)
    assert light.problems == []
    np.testing.assert_array_equal(light.what_if(0.5).exits, trace.what_if(0.5).exits)
    assert len(light.images(range(10))) == 10
    with pytest.raises(UserError, match="has no rows"):
        light.exit_layers()


def test_a_budget_is_the_cheapest_threshold_that_keeps_it(full: deediff.Trace) -> None:
    costs = {round(float(tau), 3): full.what_if(float(tau)).gflops for tau in THRESHOLDS}
    budget = (min(costs.values()) + max(costs.values())) / 2
    chosen = make_policy(f"budget:{budget}@{full.path}")
    assert chosen.spec == f"threshold:{min(tau for tau, cost in costs.items() if cost <= budget):g}"
    with pytest.raises(UserError, match="no threshold costs 1e-09 GFLOPs or less"):
        make_policy(f"budget:1e-9@{full.path}")


def test_comparison_holds_traces_against_the_full_network(run_folder: Path, exits: deediff.Trace) -> None:
    never = record(run_folder, "plain", policy="never")
    table = comparison_table([exits, never]).set_index("policy")
    row, full = table.loc[f"threshold:{TAU}"], table.loc["never"]
    assert row["layer_ratio"] == pytest.approx(exits.exit_layers().mean() / 13)
    assert row["gflops_per_step"] == pytest.approx(exits.meta.mean_gflops)
    assert row["speed_up"] == pytest.approx(full["seconds_per_image"] / row["seconds_per_image"])
    assert row["efficiency"] == pytest.approx(row["speed_up"] * row["gflops_per_step"] / never.cost.full)
    pixels = [[np.asarray(Image.open(io.BytesIO(png)), float) for png in t.images(range(10))] for t in (exits, never)]
    assert row["image_change"] == pytest.approx(np.abs(np.subtract(*pixels)).mean(), rel=1e-5)
    assert full["image_change"] == 0
    assert pd.isna(comparison_table([exits])["speed_up"][0])


@pytest.mark.parametrize("field", ["timesteps", "cost", "num_samples", "policy"])
def test_damaged_fields_of_a_trace_are_a_sentence(run_folder: Path, tmp_path: Path, field: str) -> None:
    meta = record(run_folder, "fields").meta.raw
    (tmp_path / "trace.json").write_text(json.dumps({**meta, field: {"policy": "threshold:abc"}.get(field, 0)}))
    with pytest.raises(UserError, match="is damaged"):
        deediff.read_trace(tmp_path)
