"""Ratios, costs and sizes of the benchmarks; times are not tested."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deediff.bench.app import bench_app
from deediff.bench.profiles import bimodal_exits, independent_exits, read_profile
from deediff.bench.sampler import SamplerBench, bench_sampler
from deediff.bench.synthetic import PART, write_synthetic
from deediff.bench.trace import TraceBench, bench_trace
from deediff.bench.train import bench_train
from deediff.cli import main
from deediff.cost.components import model_cost
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViT
from deediff.traces.reader import read_trace
from tests.conftest import TINY, make_model, make_run, sample_trace

MODEL = make_model()
CPU = torch.device("cpu")


def test_every_variant_is_compared_with_the_full_network() -> None:
    cost = model_cost(MODEL)
    result = bench_sampler(MODEL, CPU, SamplerBench(batch_sizes=(3, 1), steps=2, repeats=2))
    assert [row["batch"] for row in result["rows"]] == [3] * 7 + [1] * 7
    for row in result["rows"]:
        full = next(r for r in result["rows"] if r["batch"] == row["batch"])
        assert full["variant"] == "full"
        assert row["rounds"] == 2
        if "plan" not in row["variant"]:  # compared with the full network at the plan's timesteps
            assert row["speed_up"] == pytest.approx(full["ms_per_image_step"] / row["ms_per_image_step"])
        assert row["gflop_per_s"] == pytest.approx(1000 * row["gflops"] / row["ms_per_image_step"])
        assert row["share_of_peak"] == pytest.approx(row["gflop_per_s"] / result["matmul_peak_gflop_per_s"])
        if row["variant"].startswith("real"):
            assert row["efficiency"] == pytest.approx(row["speed_up"] * row["gflops"] / cost.full)
        else:
            assert row["efficiency"] is None
    rows = {row["variant"]: row for row in result["rows"][:7]}
    assert rows["full"]["gflops"] == cost.full
    assert rows["recorded in full"]["gflops"] == pytest.approx(cost.full + sum(cost.uems))
    assert rows["simulated"]["gflops"] == pytest.approx(cost.full + sum(cost.uems) + sum(cost.heads))
    gaussian = 4 * 256 * 3 * 16 * 16 / 1e9  # three of eight steps; one exits at layer 3, three run all blocks
    three = float(cost.at_exit(with_uem=False)[3])
    assert rows["real, plan of 8 steps"]["gflops"] == pytest.approx((3 * gaussian + three + 3 * cost.full) / 8)
    counts = torch.bincount(independent_exits(3, 2, 13, 0.5).flatten(), minlength=14).numpy()
    assert rows["real, independent 0.5"]["gflops"] == pytest.approx(cost.mean_gflops(counts, with_uem=True))


def test_without_time_there_is_still_one_round() -> None:
    result = bench_sampler(MODEL, CPU, SamplerBench(batch_sizes=(2, 1), steps=1, minutes=0))
    assert {row["rounds"] for row in result["rows"]} == {1}


def test_a_class_conditional_model_draws_its_classes() -> None:
    model = EarlyExitModel(UViT(replace(TINY, num_classes=3))).add_exits({"name": "mlp", "scope": "layer"}).eval()
    rows = bench_sampler(model, CPU, SamplerBench(batch_sizes=(4,), steps=1, repeats=1))["rows"]
    assert rows[0]["gflops"] == model_cost(model).full


def test_synthetic_profiles_have_the_given_layer_ratio() -> None:
    for ratio in (0.5, 0.7):
        assert independent_exits(500, 50, 13, ratio).float().mean() / 13 == pytest.approx(ratio, abs=0.01)
    layers = bimodal_exits(500, 50, 13)
    assert set(layers.unique().tolist()) == {1, 2, 13}
    assert layers[:, 0].max() <= 2
    assert layers[:, -1].min() == 13


def test_a_published_profile_is_read_with_row_0_at_t_0(shared: Path) -> None:
    path = shared / "reference" / "published_exit_layers.npz"
    profile = read_profile(f"{path}:mlp_layer_finetuned", 13)
    exits = profile.at([999, 749, 249, 0], 2000)  # of 1280 samples
    assert exits.shape == (2000, 4)
    assert exits[:, 0].float().mean() < 2  # noisy images exit early
    assert exits[:, 3].float().mean() > 12.5
    published = np.load(path)["mlp_layer_finetuned"]
    assert exits[1285].tolist() == published[[999, 749, 249, 0], 5].tolist()

    bench = SamplerBench((4,), 2, 1, profile=f"{path}:mlp_layer_finetuned")
    rows = {row["variant"]: row for row in bench_sampler(MODEL, CPU, bench)["rows"]}
    counts = torch.bincount(profile.at([999, 499], 4).flatten(), minlength=14).numpy()
    row = rows["real, mlp_layer_finetuned"]
    assert row["gflops"] == pytest.approx(model_cost(MODEL).mean_gflops(counts, with_uem=True))
    assert not any("imitated" in variant for variant in rows)
    with pytest.raises(UserError, match="holds no array 'mlp'"):
        read_profile(f"{path}:mlp", 13)


def test_a_trace_is_a_profile_too(tmp_path: Path) -> None:
    folder = sample_trace(make_run(tmp_path / "run"), tmp_path / "trace", 3, "threshold:0.4", steps=4, device="cpu")
    profile, exits = read_profile(str(folder), 13), read_trace(folder).exit_layers()
    assert profile.at([999, 749, 499, 249], 3).numpy().tolist() == exits.tolist()
    assert profile.at([300, 990], 1).tolist() == [[exits[0, 3], exits[0, 0]]]


@pytest.mark.parametrize(
    ("arrays", "name", "sentence"),
    [
        (None, "", "profile.npz cannot be read as an .npz of exit layers"),
        (
            {"a": np.ones((1000, 2), int), "b": np.ones((1000, 2), int)},
            "",
            "use .*profile.npz:NAME with one of a, b",
        ),
        ({"a": np.ones((1000, 2), int)}, ":b", "holds no array 'b'"),
        (
            {"a": np.ones((2, 1000), int)},
            "",
            r"a is int64 of shape \(2, 1000\), expected integers of shape \(1000, samples",
        ),
        ({"a": np.ones((1000, 2))}, ":a", "a is float64"),
        ({"a": np.full((1000, 2), 14)}, "", r"exits at layers 14 … 14, but this model has 0 … 13"),
        ({"a": np.full((1000, 2), -1)}, "", "exits at layers -1"),
        ({"a": np.array([[object()]])}, "", "cannot be read as an .npz of exit layers"),
    ],
)
def test_a_bad_profile_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray] | None, name: str, sentence: str
) -> None:
    path = tmp_path / "profile.npz"
    if arrays is None:
        path.write_text("exit layers")
    else:
        np.savez(path, **arrays)
    with pytest.raises(UserError, match=sentence):
        read_profile(f"{path}{name}", 13)


@pytest.mark.parametrize("profile", ["nowhere.npz", "nowhere"])
def test_a_profile_that_does_not_exist_is_refused(profile: str) -> None:
    with pytest.raises(UserError, match="nowhere"):
        bench_sampler(MODEL, CPU, SamplerBench((1,), 1, 1, profile=profile))


def test_a_model_without_exits_is_refused() -> None:
    with pytest.raises(UserError, match="needs UEMs, but this model has none"):
        bench_sampler(EarlyExitModel(UViT(TINY)), CPU, SamplerBench((1,), 1, 1))


def test_bytes_per_row_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deediff.bench.trace.SYNTHETIC", (5, 20))
    bench = TraceBench("threshold:0.4", num_samples=5, batch_size=3, steps=4, repeats=2)
    result = bench_trace(MODEL, CPU, tmp_path, bench)
    assert [row["record"] for row in result["rows"]] == ["exit", "full", "exit"]
    for k, row in enumerate(result["rows"]):
        sizes = [(tmp_path / f"{k}-0" / f"part-0000{part}.parquet").stat().st_size for part in (0, 1)]
        assert row["bytes_per_row"] == sum(sizes) / 20
        assert row["logging_share"] == row["logging_seconds"] / (row["logging_seconds"] + row["sampling_seconds"])
        trace = read_trace(tmp_path / f"{k}-0")
        assert trace.problems == []
        assert trace.exit_layers().mean() / 13 == pytest.approx(row["layer_ratio"])
    assert np.array_equal(trace.exit_layers(), independent_exits(5, 4, 13, 0.5))
    synthetic = result["throughput"]
    assert synthetic["rows"] == 100
    assert synthetic["bytes_per_row"] == (tmp_path / "synthetic" / "part-00000.parquet").stat().st_size / 100


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(make_run(tmp_path / "run"))
    assert main(["bench", "sampler", run, "--batch-sizes", "2", "--steps", "1", "--repeats", "1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 7
    assert main(["bench", "trace", run, "--num-samples", "2", "--steps", "2", "--repeats", "1"]) == 0
    assert "logging_share" in capsys.readouterr().out
    assert main(["bench", "sampler", run, "--profile", "nowhere.npz"]) == 2
    assert "nowhere.npz cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [0, 3])
def test_training_rates_are_compared_with_fine_tuning(classes: int) -> None:
    result = bench_train(make_model(config=replace(TINY, num_classes=classes)), CPU, batch_size=4, repeats=1)
    rows = {(row["strategy"], row["precision"]): row for row in result["rows"]}
    assert len(rows) == 4
    slowest = rows["fine-tuned", "float32"]
    assert slowest["speed_up"] == 1
    for row in rows.values():
        assert row["speed_up"] == pytest.approx(row["images_per_s"] / slowest["images_per_s"])


def test_the_synthetic_trace_is_what_its_rows_say(tmp_path: Path) -> None:
    cost = model_cost(MODEL)
    trace = read_trace(write_synthetic(tmp_path / "t", cost, (1, 8, 8), samples=10 * PART, steps=5, parts=2))
    assert trace.problems == []
    assert (int(trace.summary.samples), trace.meta.num_samples, trace.parts) == (10 * PART, 10 * PART, [0, 1])
    u = np.concatenate([trace.uncertainty(part) for part in trace.parts])  # each part is repeated five times
    tau = 0.2
    leaves = u <= np.float32(tau)
    layers = np.where(leaves.any(axis=-1), leaves.argmax(axis=-1), 13)
    assert 0 < trace.what_if(tau).layer_ratio == pytest.approx(layers.mean() / 13)
    assert trace.what_if(tau).exits.sum() == 10 * PART * 5
    assert len(trace.images(range(PART))) == PART


def test_a_missing_browser_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(UserError, match="--record full"):
        bench_app(run, tmp_path)
    sample_trace(run, run / "traces" / "full", 8, "never", steps=1, record="full")
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(UserError, match="pip install playwright"):
        bench_app(run, tmp_path / "a", steps=3, samples=PART)


@pytest.mark.e2e
def test_every_measure_of_the_explorer_is_taken(tmp_path: Path) -> None:
    model = make_model()
    model.uem.bias -= 2.0  # u where the slider's stops are, so that moving it changes the heatmap
    run = make_run(tmp_path / "tiny", model)
    sample_trace(run, run / "traces" / "full", 16, "never", steps=4, record="full")
    result = bench_app(run, tmp_path, repeats=1, samples=2 * PART, steps=6, people=2)
    rows = [(row["measure"], row["of"]) for row in result["rows"]]
    for of in ("tiny/full", "synthetic/synthetic"):
        for measure in (
            "slider released to heatmap redrawn",
            "of which the server's own computation",
            "switch to /runs",
            "switch to /compare",
        ):
            assert (measure, of) in rows
    assert ("first page", "tiny") in rows
    for measure in ("live mode: Sample clicked to first image", "live mode: slider released to images"):
        assert (measure, "tiny") in rows
    for measure in ("sample clicked to film", "sample chosen to diffusion lens"):
        assert (measure, "tiny/full") in rows
    medians = {row["measure"]: row["median"] for row in result["rows"] if row["of"] == "tiny/full"}
    alone, together = medians["slider in one browser context"], medians["slider in 2 browser contexts at once"]
    assert medians["ratio of these medians"] == pytest.approx(together / alone)
    assert all(row["median"] > 0 for row in result["rows"])
    assert result["server_mb"] > result["model_mb"] > 0
    limited = [row for row in result["rows"] if row["limit"] is not None]
    assert all((row["within"] == "yes") == (row["median"] <= row["limit"]) for row in limited)
