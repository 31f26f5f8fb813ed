"""The commands: results as JSON, and one sentence with exit code 2 for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deediff.cli import main
from deediff.cli.show import as_text
from tests.conftest import REPO

DDIM50 = str(REPO / "runs" / "mnist_tiny" / "traces" / "ddim50-never-full")


def result(capsys: pytest.CaptureFixture[str], *args: object) -> dict:
    assert main([*map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_sample_then_trends(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run / "traces" / "t"
    args = ("sample", run, "--policy", "threshold:0.4", "--steps", 4, "--num-samples", 6, "--batch-size", 3)
    sampled = result(capsys, *args, "--record", "full", "--out", out)
    assert sampled["complete"] is True
    trends = result(capsys, "trends", out, "--thresholds", "0.3:0.5:0.1")
    assert [row["threshold"] for row in trends["thresholds"]] == [0.3, 0.4, 0.5]
    assert trends["thresholds"][1]["layer_ratio"] == pytest.approx(sampled["layer_ratio"])
    assert trends["thresholds"][1]["gflops"] == pytest.approx(sampled["mean_gflops"])


def test_flops_adds_up(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = result(capsys, "flops", run, "--repeats", 1)
    parts = {row["component"]: row for row in table["components"]}
    assert table["full_gflops"] == parts["full network"]["gflops"]
    assert table["backbone_parameters"] == parts["full network"]["parameters"]
    assert [row["exit_layer"] for row in table["exits"]] == list(range(14))
    assert table["exits"][13]["gflops"] > table["full_gflops"] > table["full_gflops_without_attention"]
    assert all(row["ms"] > 0 for row in (*table["components"], *table["exits"]))
    state = (16 + 1) * 32 * 4  # tokens × width × bytes
    stored = {(row["readout"], row["exit_layers"]): row["bytes_per_sample"] for row in table["memory"]}
    assert (stored["memory:0", 1], stored["memory:1", 1], stored["deep:j", 1]) == (state, 2 * state, state)
    assert stored["memory:2", 13] == 3 * 13 * state


def test_a_preset_is_counted_with_the_given_uem(capsys: pytest.CaptureFixture[str]) -> None:
    probes = {}
    for uem in ("mlp", "attention"):
        table = result(capsys, "flops", "uvit_tiny", "--uem", uem, "--repeats", 1, "--batch-size", 1)
        probes[uem] = next(row["gflops"] for row in table["components"] if row["component"] == "UEM 0")
    assert probes["attention"] > 100 * probes["mlp"] > 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--policy", "sometimes"], "unknown policy 'sometimes'"),
        (["--policy", "every:0"], "policy every:0 has period 0, expected 1 or more steps"),
        (["--policy", "every:2,first"], "has the option 'first', expected warmup:w or last"),
        (["--policy", "every:2", "--readout", "memory:3"], "readout memory:3 has order 3, expected 0, 1 or 2"),
        (["--policy", "every:2", "--readout", "memory"], "readout memory: has '', expected a whole number: memory:o"),
        (
            ["--policy", "every:2", "--readout", "deep:7"],
            "readout deep:7 runs 7 blocks on each side, but this backbone's",
        ),
        (
            ["--policy", "every:2", "--readout", "deep:0"],
            "readout deep:0 runs 0 blocks on each side, expected 1 or more",
        ),
        (["--policy", "fixed:6", "--readout", "deep:3"], "reads out exits at layer 3, the policy's are at 6"),
        (["--policy", "every:2", "--readout", "gaussian"], "readout gaussian needs the mean and covariance"),
        (["--policy", "every:2", "--readout", "magic"], "unknown readout 'magic', expected one of: head, gaussian"),
        (["--policy", "threshold:2"], "threshold is 2.0, expected a number in [0, 1]"),
        (["--num-samples", "0"], "the number of samples is 0"),
        (["--batch-size", "0"], "the batch size is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--num-samples", "7000000"], "7000000 samples in batches of 64 are more than 100000 parts"),
        (["--maps", f"0:{10**12}", "--policy", "threshold:0.1"], "the trace has no sample 64 to map"),
    ],
)
def test_bad_settings(run: Path, capsys: pytest.CaptureFixture[str], args: list[str], sentence: str) -> None:
    out = run / "traces" / "t"
    assert main(["sample", str(run), "--out", str(out), *args]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert sentence in message
    assert message.count("\n") == 1
    assert not out.exists()  # nothing was written


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["trends", "nowhere"], "does not exist"),
        (["trends", DDIM50, "--thresholds", "0:1:1e-9"], "steps of 0.0001 or more"),
        (["trends", DDIM50, "--thresholds", "0.1:nan:0.1"], "0 ≤ start ≤ stop ≤ 1"),
        (["trends", "memory://nowhere/x"], "memory://nowhere/x/trace.json does not exist"),
        (["compare", "nowhere", "--out", "table.pdf"], "no format belongs to table.pdf, expected one of .txt, .csv"),
        (["sample", "nowhere", "--out", ""], "the path is empty, expected a folder or a URL"),
        (["flops", "nowhere"], "checkpoint nowhere does not exist"),
        (["import", "nowhere.pth", "--layout", "uvit", "--out", "x"], "nowhere.pth does not exist"),
    ],
)
def test_unusable_arguments(capsys: pytest.CaptureFixture[str], args: list[str], sentence: str) -> None:
    assert main(args) == 2
    assert sentence in capsys.readouterr().err


def test_an_unwritable_folder_is_a_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "traces").write_text("a file where a folder should be")
    assert main(["sample", str(run), "--out", str(run / "traces" / "t"), "--steps", "2"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_rows_that_lack_columns_are_one_table() -> None:
    """Every column of any row has its place, as in the steps of a plan, of which only some can be left out."""
    text = as_text({"rows": [{"a": 1, "b": 2}, {"a": 3, "c": 0.5}]})
    assert [line.split() for line in text.strip().splitlines()] == [["a", "b", "c"], ["1", "2", "–"], ["3", "–", "0.5"]]
