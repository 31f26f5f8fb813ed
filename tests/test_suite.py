"""Suites: a published table from training to results, at toy size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deediff.traces.reader import read_trace
from trainer.run import main
from trainer.suite import SUITES


def run(name: str, out: Path, shared: Path) -> list[dict]:
    assert main([f"suite:{name}", "--scale", "toy", "--out", str(out), "--data-root", str(shared / "data")]) == 0
    return json.loads((out / f"suite-{name}.json").read_text())["rows"]


@pytest.mark.parametrize("name", list(SUITES))
def test_each_suite_runs_from_training_to_results(name: str, tmp_path: Path, shared: Path) -> None:
    rows = run(name, tmp_path, shared)
    assert rows
    for row, line in zip(rows, SUITES[name], strict=False):
        assert row["published"] == line.published
        trace = read_trace(tmp_path / row["trace"])
        assert trace.meta["complete"]
        assert row["measured"]["gflops"] == trace.meta["mean_gflops"]
        assert row["measured"]["layer_reduction_pct"] == pytest.approx(100 * (1 - trace.meta["layer_ratio"]))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert run(name, tmp_path, shared) == rows
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before  # nothing is done twice


def test_baselines_spend_no_more_than_early_exit(tmp_path: Path, shared: Path) -> None:
    rows = {row["name"]: row["measured"] for row in run("baselines", tmp_path, shared)}
    budget = rows["MLP per layer, frozen"]["gflops_per_image"]
    for name in ("fewer steps", "one exit for all", "best static schedule"):  # the toy has no smaller network
        assert rows[name]["gflops_per_image"] <= budget * 1.001


def test_the_component_table_stands_beside_the_published_one(tmp_path: Path, shared: Path) -> None:
    """Within one unit of the last printed digit, two for the head: the published one counts its norm."""
    for row, digit in zip(run("table2", tmp_path, shared), (1e-4, 1e-2, 2e-4), strict=True):
        assert row["measured"]["gflops"] == pytest.approx(row["published"]["gflops"], abs=digit)


@pytest.mark.parametrize(("args", "sentence"), [(["suite:table9"], "unknown suite 'table9', expected one of: table1")])
def test_an_unknown_suite_is_a_sentence(args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    assert sentence in capsys.readouterr().err
