"""What is written is what happened, and can be read back, resumed and asked."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import deediff
from deediff.analysis.compare import comparison_table
from deediff.analysis.cost import Cost
from deediff.analysis.trends import mean_exit_layer, threshold_table, timestep_share
from deediff.cli import main
from deediff.datasets import to_uint8
from deediff.errors import UserError
from deediff.sampling import make_policy
from deediff.traces import schema
from deediff.traces.parts import finish
from deediff.traces.schema import THRESHOLDS
from deediff.traces.summary import Summary
from deediff.traces.writer import sample_to_trace
from tests.conftest import REPO, TINY, make_model, make_run

TAU = 0.4


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("traces") / "run")


def record(run: Path, name: str, **kwargs: object) -> deediff.Trace:
    options: dict[str, object] = {"num_samples": 10, "steps": 5, "batch_size": 4, "policy": f"threshold:{TAU}"}
    folder = name if "://" in name else run / "traces" / name
    return deediff.read_trace(sample_to_trace(run, folder, **{**options, **kwargs}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def full(run_folder: Path) -> deediff.Trace:
    return record(run_folder, "full", policy="never", record="full")


@pytest.fixture(scope="module")
def exits(run_folder: Path) -> deediff.Trace:
    return record(run_folder, "exits")


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
    assert exits.meta["complete"] is True


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
        + sum(cost.uems[: min(i, 12) + 1])  # UEM 0 … i were asked; the one before block 12 is the last
        + (cost.heads[i] if i < 13 else cost.decode)
        for i in layers.reshape(-1)
    ]
    assert exits.meta["mean_gflops"] == pytest.approx(np.mean(by_hand), rel=1e-9)
    assert exits.meta["layer_ratio"] == pytest.approx(layers.mean() / 13)
    assert full.meta["mean_gflops"] == pytest.approx(cost.full)  # 'never' asks no UEM


def comparable(trace: deediff.Trace) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(trace.path.iterdir()) if p.name != "trace.json"}


@pytest.mark.parametrize("solver", ["ddim", "ddpm"])
def test_resume_equals_uninterrupted(run_folder: Path, solver: str) -> None:
    whole = record(run_folder, f"whole-{solver}", solver=solver)

    class Killed(Exception):
        pass

    def kill(step: deediff.Step) -> None:
        if step.done == 8:  # in the middle of the second part
            raise Killed

    with pytest.raises(Killed):
        record(run_folder, f"killed-{solver}", solver=solver, on_step=kill)
    halfway = deediff.read_trace(run_folder / "traces" / f"killed-{solver}")
    assert halfway.parts == [0]
    assert "not complete" in halfway.problems[0]
    assert halfway.exit_layers().shape == (4, 5)  # what was complete stays readable
    resumed_steps = []
    resumed = record(run_folder, f"killed-{solver}", solver=solver, on_step=lambda s: resumed_steps.append(s))
    assert {s.samples for s in resumed_steps} == {range(4, 8), range(8, 10)}  # only unfinished parts
    assert comparable(resumed) == comparable(whole)


@pytest.mark.parametrize("shared_folder", ["shared", "memory://bucket/shared"])
def test_processes_share_the_parts_without_talking(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, shared_folder: str
) -> None:
    alone = record(run_folder, "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        shared = record(run_folder, shared_folder)
    assert comparable(shared) == comparable(alone)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UserError, match="4 processes for 3 parts"):
        record(run_folder, "too-many")


def test_a_truncated_part_is_ignored_and_redone(run_folder: Path) -> None:
    trace = record(run_folder, "cut")
    before = comparable(trace)
    rows = trace.path / "part-00001.parquet"
    rows.write_bytes(rows.read_bytes()[:-20])
    cut = deediff.read_trace(trace.path)
    assert cut.parts == [0, 2]
    assert cut.problems == ["part-00001.parquet is cut short and was ignored; run the same sampling command to redo it"]
    assert cut.exit_layers().shape == (6, 5)
    assert comparable(record(run_folder, "cut")) == before


def test_another_trace_in_the_folder_is_not_overwritten(run_folder: Path, exits: deediff.Trace) -> None:
    with pytest.raises(UserError, match=r"holds another trace \(different: steps, seed\)"):
        record(run_folder, "exits", steps=6, seed=1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holds a JSON list, expected an object"),
        ('{"format_version": 99}', "format_version is 99, expected 1"),
        ('{"format_version": 1}', "it is not a trace written by deediff"),
    ],
)
def test_what_is_read_is_not_trusted(tmp_path: Path, content: str, sentence: str) -> None:
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
    """As shipped traces do, to save space: summary and images answer all the same."""
    trace = record(run_folder, "light")
    for rows in trace.path.glob("part-*.parquet"):
        rows.unlink()
    light = deediff.read_trace(trace.path)
    assert light.problems == []
    np.testing.assert_array_equal(light.what_if(0.5).exits, trace.what_if(0.5).exits)
    assert len(light.images(range(10))) == 10
    with pytest.raises(UserError, match="came without its rows"):
        light.exit_layers()


def test_a_full_disk_loses_nothing_that_was_complete(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deediff.traces import parts

    whole, real = record(run_folder, "roomy"), parts.write_atomically

    def full_disk(path: Path, data: bytes, sync: bool = True) -> None:
        if path.name == "samples-00001.parquet":
            raise OSError(28, "No space left on device")
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_atomically", full_disk)
        with pytest.raises(UserError, match=r"No space left on device\): the parts before 1 are complete"):
            record(run_folder, "crowded")
    assert deediff.read_trace(run_folder / "traces" / "crowded").parts == [0]
    assert comparable(record(run_folder, "crowded")) == comparable(whole)


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
    assert row["gflops_per_step"] == pytest.approx(exits.meta["mean_gflops"])
    assert row["speed_up"] == pytest.approx(full["seconds_per_image"] / row["seconds_per_image"])
    assert row["efficiency"] == pytest.approx(row["speed_up"] * row["gflops_per_step"] / never.cost.full)
    pixels = [[np.asarray(Image.open(io.BytesIO(png)), float) for png in t.images(range(10))] for t in (exits, never)]
    assert row["image_change"] == pytest.approx(np.abs(np.subtract(*pixels)).mean(), rel=1e-5)
    assert full["image_change"] == 0
    assert pd.isna(comparison_table([exits])["speed_up"][0])


def test_a_trace_at_a_url_is_the_local_one(run_folder: Path, exits: deediff.Trace) -> None:
    there = record(run_folder, "memory://bucket/whole")
    assert not (REPO / "memory:").exists()
    assert there.meta["complete"] is True
    assert there.problems == []
    assert comparable(there) == comparable(exits)
    np.testing.assert_array_equal(there.exit_layers(), exits.exit_layers())
    np.testing.assert_array_equal(there.uncertainty(1), exits.uncertainty(1))
    np.testing.assert_array_equal(there.mean_exit_layers(), exits.mean_exit_layers())
    np.testing.assert_array_equal(there.what_if(0.5).exits, exits.what_if(0.5).exits)
    pd.testing.assert_frame_equal(there.to_pandas(slice(3, 9)), exits.to_pandas(slice(3, 9)))
    pd.testing.assert_frame_equal(there.samples(range(3, 9)), exits.samples(range(3, 9)))
    assert there.images(range(10)) == exits.images(range(10))


def test_a_trace_at_a_url_is_resumed(run_folder: Path) -> None:
    whole = record(run_folder, "memory://bucket/resumed")
    before = comparable(whole)
    (whole.path / "part-00001.parquet").unlink()
    assert deediff.read_trace("memory://bucket/resumed").parts == [0, 2]
    redone = []
    resumed = record(run_folder, "memory://bucket/resumed", on_step=lambda step, *_: redone.append(step.samples))
    assert set(redone) == {range(4, 8)}
    assert comparable(resumed) == before


def test_a_full_bucket_loses_nothing_that_was_complete(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, real = record(run_folder, "memory://bucket/roomy"), MemoryFileSystem._open

    class OverQuota(Exception):  # drivers have errors of their own
        pass

    def full_bucket(self: MemoryFileSystem, path: str, mode: str = "rb", **kwargs: object) -> object:
        if "w" in mode and path.endswith("part-00001.parquet"):
            raise OverQuota("no room left")
        return real(self, path, mode, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "_open", full_bucket)
        with pytest.raises(UserError, match=r"no room left\): the parts before 1 are complete"):
            record(run_folder, "memory://bucket/crowded")
    assert deediff.read_trace("memory://bucket/crowded").parts == [0]
    assert comparable(record(run_folder, "memory://bucket/crowded")) == comparable(whole)


def test_commands_take_urls(run_folder: Path, full: deediff.Trace, capsys: pytest.CaptureFixture[str]) -> None:
    out = "memory://bucket/commanded"
    options = ["--policy", f"threshold:{TAU}", "--steps", "5", "--num-samples", "10", "--batch-size", "4", "--json"]
    assert main(["sample", str(run_folder), "--out", out, *options]) == 0
    sampled = json.loads(capsys.readouterr().out)
    assert (sampled["trace"], sampled["complete"]) == (out, True)
    assert main(["trends", out, "--thresholds", str(TAU), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["thresholds"][0]["layer_ratio"] == pytest.approx(sampled["layer_ratio"])
    assert main(["compare", out, str(full.path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["traces"]
    assert [row["trace"] for row in rows] == ["commanded", "full"]
    assert rows[0]["image_change"] > 0


@pytest.mark.parametrize("command", ["sample", "trends", "compare"])
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nosuch://bucket/x", "cannot be reached (Unsupported filesystem: 'nosuch')"),
        ("s3://bucket/x", "needs a driver that is not installed (Install s3fs"),
        ("ftp://127.0.0.1:1/x", "cannot be reached (Connection refused)"),
    ],
)
def test_a_url_that_cannot_be_opened_is_a_sentence(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, url: str, sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    assert main([command, *([str(run_folder), "--out"] if command == "sample" else []), url]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {url}")
    assert sentence in message
    assert message.count("\n") == 1


def command_line(run: Path, name: str, *more: str) -> list[str]:
    out = ["--out", str(run / "traces" / name)]
    options = ["--policy", f"threshold:{TAU}", "--solver", "ddpm", "--num-samples", "24", "--batch-size", "4", *more]
    return ["-m", "deediff.cli", "sample", str(run), *options, *out]


@pytest.mark.parametrize("damaged", ["samples-00001.parquet", "summary.npz", "part-00000.parquet"])
def test_whatever_is_damaged_is_redone_by_the_same_command(run_folder: Path, damaged: str) -> None:
    trace = record(run_folder, f"damaged-{damaged}")
    before = comparable(trace)
    (trace.path / damaged).write_bytes(before[damaged][:40])
    assert comparable(record(run_folder, f"damaged-{damaged}")) == before


def test_several_processes_may_finish_at_once(run_folder: Path) -> None:
    """One finds the part summaries gone, because another has merged them and cleaned up."""
    trace = record(run_folder, "finished")
    before = json.loads((trace.path / "trace.json").read_text())
    for _ in range(2):
        assert finish(trace.path, 3)
    assert json.loads((trace.path / "trace.json").read_text()) == before
    assert before["wall_seconds"] > 0


def test_an_edited_schedule_is_another_trace(run_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "schedule.json"
    file.write_text('{"exit_layer": [13, 5]}')
    trace = record(run_folder, "scheduled", policy=f"schedule:{file}")
    assert trace.meta["policy_content"] == {"exit_layer": [13, 5]}
    file.write_text('{"exit_layer": [13, 6]}')
    with pytest.raises(UserError, match="policy_content"):
        record(run_folder, "scheduled", policy=f"schedule:{file}")


@pytest.mark.parametrize("field", ["timesteps", "cost", "num_samples", "policy"])
def test_damaged_fields_of_a_trace_are_a_sentence(run_folder: Path, tmp_path: Path, field: str) -> None:
    meta = record(run_folder, "fields").meta
    (tmp_path / "trace.json").write_text(json.dumps({**meta, field: {"policy": "threshold:abc"}.get(field, 0)}))
    with pytest.raises(UserError, match="is damaged"):
        deediff.read_trace(tmp_path)


@pytest.mark.slow
def test_two_processes_of_torchrun_write_the_trace_of_one(run_folder: Path) -> None:
    subprocess.run([sys.executable, *command_line(run_folder, "solo", "--steps", "20")], check=True, cwd=REPO)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, *command_line(run_folder, "duet", "--steps", "20")]
    subprocess.run(command, check=True, cwd=REPO, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    solo, duet = (deediff.read_trace(run_folder / "traces" / name) for name in ("solo", "duet"))
    assert duet.meta["complete"] is True
    np.testing.assert_array_equal(solo.exit_layers(), duet.exit_layers())
    assert solo.images(range(24)) == duet.images(range(24))


@pytest.mark.slow
def test_a_killed_process_is_resumed_to_the_same_trace(run_folder: Path) -> None:
    """kill -9 as soon as the first part stands, wherever the second one is."""
    whole, killed = (command_line(run_folder, name, "--steps", "200") for name in ("unharmed", "killed-hard"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *whole], check=True, cwd=REPO, env=environment)
    process = subprocess.Popen([sys.executable, *killed], cwd=REPO, env=environment)
    folder = run_folder / "traces" / "killed-hard"
    while not (folder / "part-00000.parquet").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert 1 <= len(deediff.read_trace(folder).parts) < 6
    subprocess.run([sys.executable, *killed], check=True, cwd=REPO, env=environment)
    assert comparable(deediff.read_trace(folder)) == comparable(deediff.read_trace(run_folder / "traces" / "unharmed"))


PEAK_MEMORY = """
import resource, sys
from deediff.traces.writer import sample_to_trace
sample_to_trace(sys.argv[1], sys.argv[2], int(sys.argv[3]), policy="threshold:0.5", steps=4, batch_size=64)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_model(config=replace(TINY, embed_dim=16, img_size=8)))

    def peak(samples: int) -> int:
        command = [sys.executable, "-c", PEAK_MEMORY, str(run), str(tmp_path / str(samples)), str(samples)]
        return int(subprocess.run(command, check=True, cwd=REPO, capture_output=True, text=True).stdout)

    assert peak(8192) < 1.1 * peak(256)
