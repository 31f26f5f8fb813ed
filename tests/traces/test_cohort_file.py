"""Named cohorts of a run: kept in its folder, renamed, deleted, and found by `deediff trends --samples`."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deediff.cli import main
from deediff.errors import UserError
from deediff.traces import cohort_file
from deediff.traces.cohort import samples_to_text
from deediff.traces.cohort_file import FILE, NamedCohort, delete_cohort, keep_cohort, read_cohorts
from tests.conftest import record

HARD, EASY = NamedCohort("hard", "3,7-9", "late exits", "t"), NamedCohort("easy ones", "0-2")


def test_cohorts_are_kept_in_order_renamed_in_place_and_deleted(tmp_path: Path) -> None:
    assert read_cohorts(tmp_path) == {}
    keep_cohort(tmp_path, HARD)
    keep_cohort(tmp_path, EASY)
    assert list(read_cohorts(tmp_path).values()) == [HARD, EASY]
    renamed = NamedCohort("hardest", HARD.samples, "a new note")
    keep_cohort(tmp_path, renamed, instead_of="hard")
    assert list(read_cohorts(tmp_path).values()) == [renamed, EASY]
    assert renamed.numbers == (3, 7, 8, 9)
    delete_cohort(tmp_path, "hardest")
    assert list(read_cohorts(tmp_path)) == ["easy ones"]


def test_no_cohort_takes_the_name_of_another(tmp_path: Path) -> None:
    keep_cohort(tmp_path, HARD)
    keep_cohort(tmp_path, EASY)
    for instead_of in (None, "easy ones"):
        with pytest.raises(UserError, match="a cohort “hard” exists already"):
            keep_cohort(tmp_path, NamedCohort("hard", "1"), instead_of)
    assert list(read_cohorts(tmp_path).values()) == [HARD, EASY]


@pytest.mark.parametrize("name", ["", "12", "3-5", "a,b", "a:b", "x" * 41, "a/b", "a\nb"])
def test_a_name_is_no_number_and_no_list(name: str) -> None:
    with pytest.raises(UserError, match="is no name of a cohort"):
        NamedCohort(name, "1")


@given(st.sets(st.integers(0, 3000), min_size=1))
def test_numbers_are_those_that_were_named(numbers: set[int]) -> None:
    assert NamedCohort("some", samples_to_text(numbers)).numbers == tuple(sorted(numbers))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format_version": 2, "cohorts": []}',
        '{"format_version": 1, "cohorts": 3}',
        '{"format_version": 1, "cohorts": [3]}',
        '{"format_version": 1, "cohorts": [{"name": "a"}]}',
        '{"format_version": 1, "cohorts": [{"name": "a", "samples": "x"}]}',
        '{"format_version": 1, "cohorts": [{"name": "a", "samples": "1", "what": "?"}]}',
    ],
)
def test_a_damaged_file_is_a_sentence_and_is_not_overwritten(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(UserError, match=FILE):
        read_cohorts(tmp_path)
    with pytest.raises(UserError, match=FILE):
        keep_cohort(tmp_path, HARD)
    assert (tmp_path / FILE).read_text() == content


def test_no_writer_loses_what_another_has_kept(tmp_path: Path) -> None:
    names = [f"cohort {k}" for k in range(12)]
    threads = [threading.Thread(target=keep_cohort, args=(tmp_path, NamedCohort(name, "1"))) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read_cohorts(tmp_path)) == sorted(names)


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cohort_file, "write_json", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Read-only file system\)"):
        keep_cohort(tmp_path, HARD)


def test_trends_takes_the_name_of_a_cohort(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = record(run, "t", record="full")
    keep_cohort(run, NamedCohort("hard", "2,9"))
    assert main(["trends", str(trace.path), "--samples", "hard", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert measured["num_samples"] == 2
    assert measured["layer_ratio"] == pytest.approx(trace.exit_layers()[[2, 9]].mean() / trace.num_blocks)
    assert main(["trends", str(trace.path), "--samples", "harder"]) == 2
    assert "harder is neither a CSV with the column sample nor a cohort of" in capsys.readouterr().err
