"""Some samples of a trace: counted like a trace of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import deediff
from deediff.cli import main
from deediff.errors import UserError
from deediff.traces.cohort import limit, read_samples, samples_from_text, samples_to_csv, samples_to_text
from tests.conftest import record


@pytest.fixture
def trace(run: Path) -> deediff.Trace:
    """Ten samples in three parts, with u at every layer."""
    return record(run, "t", record="full")


@given(st.sets(st.integers(0, 3000), min_size=1))
def test_numbers_survive_their_text(numbers: set[int]) -> None:
    assert samples_from_text(samples_to_text(numbers)) == tuple(sorted(numbers))


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-4", "0-999999999", "1.5"])
def test_a_malformed_text_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match=r"is no sample number and no range of them, expected e\.g\. 3,7-9"):
        samples_from_text(text)


@pytest.mark.parametrize("numbers", [[4], [0, 3, 4, 9], range(10)])
def test_a_cohort_is_a_count_over_its_rows(trace: deediff.Trace, numbers: list[int]) -> None:
    rows = trace.to_pandas()
    rows = rows[rows["sample"].isin(numbers)]
    cohort = limit(trace, numbers)
    for step, exits in rows.groupby("step")["exit_layer"]:
        counts = np.bincount(exits, minlength=trace.num_blocks + 1)
        np.testing.assert_array_equal(cohort.summary.exits[step], counts)
    assert cohort.meta.layer_ratio == pytest.approx(rows["exit_layer"].mean() / trace.num_blocks)
    np.testing.assert_array_equal(cohort.exit_layers(), trace.exit_layers()[list(numbers)])
    tau = 0.45
    below = np.stack(rows["uncertainty"].to_numpy()) <= np.float32(tau)
    expected = np.where(below.any(axis=1), below.argmax(axis=1), trace.num_blocks)
    assert cohort.what_if(tau).layer_ratio == pytest.approx(expected.mean() / trace.num_blocks)


def test_a_cohort_and_the_others_are_the_whole(trace: deediff.Trace) -> None:
    both = limit(trace, [1, 2, 8]).summary
    both += limit(trace, [0, 3, 4, 5, 6, 7, 9]).summary
    for name in ("samples", "exits", "running_min", "u_count"):
        np.testing.assert_array_equal(getattr(both, name), getattr(trace.summary, name))
    np.testing.assert_allclose(both.u_sum, trace.summary.u_sum)


def test_the_command_counts_the_samples_of_a_file(
    trace: deediff.Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "samples.csv"
    file.write_text(samples_to_csv([9, 2]))
    assert read_samples(file) == (2, 9)
    assert main(["trends", str(trace.path), "--samples", str(file), "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert measured["num_samples"] == 2
    assert measured["layer_ratio"] == pytest.approx(trace.exit_layers()[[2, 9]].mean() / trace.num_blocks)
    for content, sentence in (
        ("sample\n4\n77\n", "lacks sample 77: it holds 10 samples, 0 … 9"),
        ("number\n4\n", "it has no column named sample"),
        ("sample\nx\n", "is no list of samples"),
        ("sample\n-1\n", "-1 is no sample number"),
        ("sample\n", "it names no sample"),
    ):
        file.write_text(content)
        assert main(["trends", str(trace.path), "--samples", str(file)]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert len(error.strip().splitlines()) == 1
    assert main(["trends", str(trace.path), "--samples", str(tmp_path / "none.csv")]) == 2
    assert "none.csv is neither a CSV" in capsys.readouterr().err
