"""`deediff variance` and `deediff static`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deediff.analysis.trends import timestep_share
from deediff.analysis.variance import decompose
from deediff.cli import main
from deediff.errors import UserError
from deediff.traces.reader import read_trace
from tests.analysis.traces import COST, command_json, counts_of, make_trace
from tests.conftest import make_run


def test_own_traces_through_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run")
    trace = folder / "traces" / "full"
    options = ("--steps", 5, "--num-samples", 6, "--batch-size", 4, "--record", "full", "--policy", "threshold:0.4")
    command_json(capsys, "sample", folder, *options, "--deviations", "--out", trace)
    table = command_json(capsys, "variance", trace, "--layers", "--draws", 20)
    assert [row["layer"] for row in table["uncertainty"]] == list(range(13))
    row, shares = table["exit_layer"][0], ("timestep", "sample", "rest")
    assert (row["trace"], row["samples"], row["steps"]) == ("run/full", 6, 5)
    assert sum(row[name]["value"] for name in shares) == pytest.approx(1)
    u = read_trace(trace).to_pandas()["uncertainty"].map(lambda x: x[7]).to_numpy().reshape(6, 5)
    assert table["uncertainty"][7]["total"]["value"] == pytest.approx(decompose(u, draws=1).total.value)
    fit = command_json(capsys, "static", trace, "--out", tmp_path / "s.json")
    assert fit["price"] == "deviation"
    options = ("--steps", 5, "--num-samples", 2, "--policy", f"schedule:{tmp_path}/s.json")
    sampled = command_json(capsys, "sample", folder, *options, "--out", folder / "traces" / "static")
    assert sampled["mean_gflops"] == pytest.approx(fit["held_out"][1]["gflops"])
    assert main(["variance", str(trace)]) == 0
    assert "[" in capsys.readouterr().out


TWO_SETS = ("attention_layer_frozen", "mlp_timestep_frozen")  # all of them would be slow


def test_the_published_sets(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "published_exit_layers.npz"
    with np.load(shared / "reference" / "published_exit_layers.npz") as sets:
        np.savez(archive, **{name: sets[name][:, :128] for name in TWO_SETS})
    command_json(capsys, "import", archive, "--layout", "duodiff-indices", "--out", tmp_path / "run")
    traces = sorted((tmp_path / "run" / "traces").iterdir())
    assert len(traces) == 2
    table = command_json(capsys, "variance", *traces, "--draws", 20)
    with np.load(archive) as sets:
        for trace, row in zip(traces, table["exit_layer"], strict=True):
            exits = sets[trace.name].T
            assert row["samples"] == len(exits)
            if trace.name == "mlp_timestep_frozen":  # few exits, at other steps than in neighbouring samples
                assert row["timestep"]["high"] < 0.5
            else:
                assert row["timestep"]["value"] == pytest.approx(timestep_share(counts_of(exits)), abs=2e-3)
                assert row["timestep"]["low"] > 0.9
    for row in table["static_schedule"]:  # without UEMs it can afford at least the adaptive layers
        assert row["static_gflops"] == pytest.approx(row["gflops"], rel=0.01)
        assert row["static_ratio"] > row["layer_ratio"] - 0.01
        assert row["nearest_agrees"] >= row["static_agrees"] - 0.01
    file = tmp_path / "s.json"
    fit = command_json(
        capsys, "static", tmp_path / "run" / "traces" / "attention_layer_frozen", "--out", file, "--budget", 12
    )
    assert fit["held_out"][-1]["gflops"] == pytest.approx(12, abs=24.4 / 1000)
    assert len(json.loads(file.read_text())["exit_layer"]) == 1000
    assert (fit["fitted_on"], fit["tested_on"]) == (64, 64)


def test_bad_input_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*args: object) -> str:
        assert main([*map(str, args)]) == 2
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        return message

    exits, u = np.full((6, 4), 13), np.random.default_rng(0).random((6, 4, 13))
    out = ("--out", tmp_path / "s.json")
    make_trace(tmp_path / "exits", exits)
    make_trace(tmp_path / "never", exits, u, policy="never", policy_needs_uncertainty=False)
    make_trace(tmp_path / "dual", exits, cost={**COST.to_json(), "shallow": 1.0, "shallow_steps": 2})
    make_trace(tmp_path / "bare", exits, cost={**COST.to_json(), "heads": []})
    make_trace(tmp_path / "one", exits[:1])
    assert "holds no uncertainties" in error("variance", tmp_path / "exits", "--layers")
    assert "holds one sample" in error("variance", tmp_path / "one")
    assert "holds one sample" in error("static", tmp_path / "one", *out)
    assert "does not adapt: give a budget" in error("static", tmp_path / "never", *out)
    assert "the cheapest is" in error("static", tmp_path / "never", *out, "--budget", 0.1)
    assert "the cheapest is" in error("static", tmp_path / "exits", *out, "--budget", 0.1)
    assert "the budget is nan" in error("static", tmp_path / "exits", *out, "--budget", "nan")
    assert "its plan or policy fixes the exits of some steps" in error("static", tmp_path / "dual", *out)
    assert "no output heads" in error("static", tmp_path / "bare", *out)
    assert "cannot be written" in error("static", tmp_path / "exits", "--out", tmp_path)
    assert not (tmp_path / "s.json").exists()
    never = command_json(capsys, "variance", tmp_path / "never", "--draws", 5)["exit_layer"][0]
    assert (never["total"]["value"], never["timestep"], never["stays_next"]) == (0, None, None)
    with pytest.raises(UserError, match="holds no deviations"):
        read_trace(tmp_path / "never").deviation(0)
    for part in (tmp_path / "exits").glob("part-*"):
        part.unlink()
    for command in (["variance", tmp_path / "exits"], ["static", tmp_path / "exits", *out]):
        assert "has no rows" in error(*command)
