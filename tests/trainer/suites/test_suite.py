"""Suites at toy size, from training to the results file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deediff.analysis.static import best_exit_layer
from deediff.traces.reader import read_trace
from trainer.run import main
from trainer.suites import experiments
from trainer.suites.baselines import smallest_excess
from trainer.suites.suite import rows_named, spread
from trainer.suites.tables import DESCRIPTIONS, ERRORS, QUIRKS, SUITES


def run(name: str, out: Path, shared: Path, *rows: str) -> list[dict]:
    where = ["--scale", "toy", "--out", str(out), "--data-root", str(shared / "data")]
    assert main([f"suite:{name}", *where, *rows]) == 0
    return json.loads((out / f"suite-{name}.json").read_text())["rows"]


@pytest.mark.parametrize("name", [name for name in SUITES if name not in ("table2", "quirks")])
def test_each_suite_runs_from_training_to_results(name: str, tmp_path: Path, shared: Path) -> None:
    check(name, tmp_path, shared)


@pytest.mark.slow
def test_the_suite_of_errors_runs_from_training_to_results(tmp_path: Path, shared: Path) -> None:
    check("quirks", tmp_path, shared)


def check(name: str, tmp_path: Path, shared: Path) -> None:
    rows = run(name, tmp_path, shared)
    assert rows
    for row, line in zip(rows, SUITES[name], strict=False):
        assert row["published"] == line.published
        trace = read_trace(tmp_path / row["trace"])
        assert trace.meta.complete
        assert row["measured"]["gflops"] == trace.meta.mean_gflops
        assert row["measured"]["layer_reduction_pct"] == pytest.approx(100 * (1 - trace.meta.layer_ratio))
        assert 0 < row["measured"]["gflops_without_attention"] <= row["measured"]["gflops"]
    assert len({row.get("trace", row["name"]) for row in rows}) == len(rows)
    tuned = {row["measured"]["images_seen"] for row in rows if row["name"].endswith(("fine-tuned", "scratch"))}
    assert tuned <= {2 * 4 * 4}  # as many for every strategy: in two stages, or in one as long
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert run(name, tmp_path, shared) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before  # no work is repeated


def test_baselines_spend_no_more_than_early_exit(tmp_path: Path, shared: Path) -> None:
    rows = {row["name"]: row["measured"] for row in run("baselines", tmp_path, shared)}
    budget = rows["MLP per layer, frozen"]["gflops_per_image"]
    for name in ("fewer steps", "one exit for all", "best static schedule"):  # the toy has no smaller network
        assert rows[name]["gflops_per_image"] <= budget * 1.001
    fitting = read_trace(tmp_path / "toy-mlp-frozen" / "traces" / "full-recording-for-fitting")
    assert fitting.meta.seed != 0  # baselines are not fitted on the evaluated seed
    best = best_exit_layer(fitting, rows["MLP per layer, frozen"]["gflops"])
    assert rows["one exit for all"]["policy"] == f"fixed:{best}"
    for row in rows.values():
        assert row["images_seen"] == 4 * 4  # every network, including the shallow and the smaller one


def test_rows_are_measured_one_by_one_into_the_same_file(tmp_path: Path, shared: Path) -> None:
    all_rows = [row.name for row in SUITES["baselines"]]
    first = run("baselines", tmp_path, shared, "--rows", "U-ViT", "one exit")
    assert [row["name"] for row in first] == [
        all_rows[0],
        "MLP per layer, frozen",
        "one exit for all",
    ]  # the budget of the baseline
    exits = read_trace(tmp_path / first[1]["trace"]).exit_layers()
    assert first[1]["measured"]["layer_0_pct"] == pytest.approx(100 * (exits == 0).mean())
    thirds = [part.mean() for part in np.array_split(exits, 3, axis=1)]
    assert first[1]["measured"]["mean_exit_layer"] == pytest.approx(thirds)
    second = run("baselines", tmp_path, shared, "--rows", "fewer steps")
    assert [row["name"] for row in second] == [*(row["name"] for row in first[:2]), "one exit for all", "fewer steps"]
    assert second[:3] == first
    of_another_scale = tmp_path / "suite-baselines.json"
    of_another_scale.write_text(of_another_scale.read_text().replace('"scale": "toy"', '"scale": "cpu"'))
    assert [row["name"] for row in run("baselines", tmp_path, shared, "--rows", "U-ViT")] == ["U-ViT"]


def test_a_whole_name_means_that_row_alone() -> None:
    assert [row.name for row in rows_named(QUIRKS, ["MLP per layer, frozen"])] == ["MLP per layer, frozen"]
    assert len(rows_named(QUIRKS, ["per layer, frozen"])) == 2 + len(ERRORS)
    assert rows_named(QUIRKS, []) == QUIRKS


def test_an_unknown_row_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suite:table3", "--scale", "toy", "--out", str(tmp_path), "--rows", "moon"]) == 2
    assert "no row of this suite has the name 'moon', only: U-ViT; " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_suites_share_traces(tmp_path: Path, shared: Path) -> None:
    first = {row["name"]: row["trace"] for row in run("table3", tmp_path, shared)}
    assert {row["name"]: row["trace"] for row in run("table4", tmp_path, shared)}["U-ViT"] == first["U-ViT"]


def test_images_are_evaluated_once(
    tmp_path: Path, shared: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments.Evaluator, "evaluate", counted := Counted(experiments.Evaluator.evaluate))
    toy = replace(experiments.SCALES["toy"], num_samples=40, batch_size=20, steps=2, metrics=("fd-mnist",))
    monkeypatch.setitem(experiments.SCALES, "toy", replace(toy, reference=str(image_folder)))
    rows = run("table4", tmp_path, shared)
    for row in rows:
        measured, kept = row["measured"]["fd-mnist"], json.loads((tmp_path / row["trace"] / "quality.json").read_text())
        assert measured["value"] in [entry["value"] for entry in kept["metrics"]]
        assert measured["images"] == 40
        assert measured["low"] <= measured["value"] <= measured["high"]
    assert counted.calls == len(rows)
    assert run("table4", tmp_path, shared) == rows
    assert counted.calls == len(rows)


class Counted:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __get__(self, instance, owner):
        def call(*arguments):
            self.calls += 1
            return self.function(instance, *arguments)

        return call


def test_full_records_come_with_their_trends(tmp_path: Path, shared: Path) -> None:
    for row in run("trends", tmp_path, shared):
        trace = read_trace(tmp_path / row["trace"])
        third = np.array(row["measured"]["mean_uncertainty"])
        assert third.shape == (3, trace.num_blocks)
        np.testing.assert_allclose(third.mean(axis=0), trace.summary.mean_uncertainty().mean(axis=0))
        at = {round(line["threshold"], 3): line["layer_ratio"] for line in row["measured"]["what_if"]}
        assert len(at) == 39
        assert at[0.105] == trace.what_if(0.105).layer_ratio


def test_a_row_with_an_error_differs_by_that_error_alone() -> None:
    """Only the rows with all errors have published values."""
    by_name = {row.name: row for row in QUIRKS}
    for tuned in ("MLP per layer, frozen", "MLP per layer, fine-tuned"):
        for name, error in ERRORS.items():
            right, wrong = by_name[tuned], by_name[f"{tuned}: {name}"]
            assert replace(wrong, name=tuned, method=right.method) == right
            assert wrong.method == replace(right.method, **error)  # type: ignore[arg-type]
    published = [row.name for row in QUIRKS[1:] if row.published]
    assert [name.split(": ")[1] for name in published] == ["all of these", "all errors"] * 2
    assert len({(row.method, row.strategy) for row in QUIRKS}) == len(QUIRKS)


def test_fewer_uems_are_spread_over_the_layers() -> None:
    assert [spread(count, 13) for count in (2, 4, 7)] == [(3, 9), (1, 4, 8, 11), (0, 2, 4, 6, 8, 10, 12)]
    assert spread(13, 13) == tuple(range(13))
    assert spread(7, 5) == tuple(range(5))


def test_every_suite_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert DESCRIPTIONS.keys() == SUITES.keys()
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(about in text for about in DESCRIPTIONS.values())


def test_the_smallest_excess_meets_the_budget() -> None:
    rng = np.random.default_rng(0)
    u, deepest = rng.uniform(0.1, 0.9, (30, 6, 4)).astype(np.float32), rng.uniform(0.2, 0.4, (6, 1)).astype(np.float32)
    prices = np.array([1.0, 2.0, 3.0, 4.0, 5.0])

    def cost(delta: float) -> float:
        leaves = u <= (1 + delta) * deepest
        exits = [next((i for i in range(4) if row[i]), 4) for row in leaves.reshape(-1, 4)]
        return float(prices[exits].mean())

    for budget in (4.5, 3.0, 1.5):
        delta = smallest_excess(u, deepest, prices, budget)
        assert cost(delta + 1e-6) <= budget < cost(delta - 0.01 - 1e-6)


def test_counted_components_agree_with_the_published_ones(
    tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within one unit of the last printed digit, two for the head: the published one counts its norm."""
    for row, digit in zip(run("table2", tmp_path, shared), (1e-4, 1e-2, 2e-4), strict=True):
        assert row["measured"]["gflops"] == pytest.approx(row["published"]["gflops"], abs=digit)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "attention probe" in line and "(0.26)" in line]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["suite:table9"], "unknown suite 'table9', expected one of: table1"),
        (["suite:table2", "--rows", "X"], "leave --rows out"),
    ],
)
def test_bad_options_of_a_suite_are_a_sentence(
    args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert sentence in capsys.readouterr().err
