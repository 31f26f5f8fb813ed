"""Traces elsewhere than on a local disk: at any URL that fsspec opens."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import deediff
from deediff.cli import main
from deediff.errors import UserError
from tests.conftest import REPO, TAU, comparable, record


def test_a_trace_at_a_url_is_the_local_one(run_folder: Path, exits: deediff.Trace) -> None:
    there = record(run_folder, "memory://bucket/whole")
    assert not (REPO / "memory:").exists()
    assert there.meta.complete is True
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
        with pytest.raises(UserError, match=r"no room left\): what was complete is kept .* make room"):
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
