"""Rename and delete change only the named run or trace, in the runs folder, and never while a job writes to it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from deediff.errors import UserError
from deediff.json_files import write_json
from deediff.runs import FRESH, delete, folder_size, is_training, list_runs, read_run, rename, why_busy


def make(root: Path, name: str, status: str = "done", traces: tuple[str, ...] = ("one",)) -> Path:
    """A run that consists of JSON files."""
    run = root / name
    write_json(run / "run.json", {"format_version": 1, "status": status})
    for trace in traces:
        write_json(run / "traces" / trace / "trace.json", {"format_version": 1, "complete": True})
    return run


def age(folder: Path, seconds: float) -> None:
    """Set the time of the last write to `seconds` ago."""
    for file in folder.rglob("*"):
        os.utime(file, (time.time() - seconds,) * 2)


def all_paths(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_delete_removes_one_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    run, other = make(tmp_path, "a", traces=("one", "two")), make(tmp_path, "b")
    delete(run / "traces" / "one", tmp_path)
    assert [trace.name for trace in read_run(run).traces] == ["two"]
    delete(run, tmp_path)
    assert [found.name for found in list_runs(tmp_path)[0]] == ["b"]
    assert all_paths(tmp_path) == sorted(["b", *(f"b/{path}" for path in all_paths(other))])


@pytest.mark.parametrize("which", ["", "a/traces", "a/..", "a/traces/one/..", "../outside", "link", "a/checkpoints"])
def test_nothing_but_runs_and_traces_of_this_folder_can_be_deleted(tmp_path: Path, which: str) -> None:
    root = tmp_path / "runs"
    make(root, "a")
    (root / "a" / "checkpoints").mkdir()
    outside = make(tmp_path, "outside")
    (root / "link").symlink_to(outside)
    before = all_paths(tmp_path)
    for attempt in (lambda: delete(root / which, root), lambda: rename(root / which, "new", root)):
        with pytest.raises(UserError, match="not a run or trace"):
            attempt()
    assert all_paths(tmp_path) == before


def test_rename_keeps_every_file(tmp_path: Path) -> None:
    run = make(tmp_path, "a", traces=("one", "two"))
    before = all_paths(run)
    new = rename(run, "b-0.1", tmp_path)
    assert new == tmp_path / "b-0.1"
    assert all_paths(new) == before
    assert rename(new / "traces" / "one", "tau=0.1", tmp_path).name == "tau=0.1"
    assert [trace.name for trace in read_run(new).traces] == ["tau=0.1", "two"]
    assert rename(new, "b-0.1", tmp_path) == new


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a\n", "x" * 121, "b\0", "τ"])
def test_a_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    run = make(tmp_path, "a")
    with pytest.raises(UserError, match="not a valid folder name"):
        rename(run, name, tmp_path)
    assert all_paths(tmp_path)[0] == "a"


def test_rename_refuses_a_name_in_use(tmp_path: Path) -> None:
    run, other = make(tmp_path, "a"), make(tmp_path, "b", traces=())
    with pytest.raises(UserError, match="exists already"):
        rename(run, "b", tmp_path)
    assert read_run(other).traces == []
    assert len(read_run(run).traces) == 1


def test_a_folder_in_use_cannot_be_deleted_until_its_files_are_old(tmp_path: Path) -> None:
    run = make(tmp_path, "a", status="training")
    assert is_training(read_run(run))
    with pytest.raises(UserError, match="trained"):
        delete(run, tmp_path)
    age(run, FRESH + 60)
    assert not is_training(read_run(run))

    write_json(run / "traces" / "one" / "trace.json", {"format_version": 1, "complete": False})
    for folder in (run, run / "traces" / "one"):
        with pytest.raises(UserError, match="still writing one"):
            delete(folder, tmp_path)
        with pytest.raises(UserError, match="still writing one"):
            rename(folder, "new", tmp_path)
    age(run, FRESH + 60)
    assert why_busy(run) is None
    delete(run, tmp_path)
    assert all_paths(tmp_path) == []


@pytest.mark.parametrize("status", ["done", "training"])
def test_files_dated_in_the_future_keep_no_folder_busy(tmp_path: Path, status: str) -> None:
    run = make(tmp_path, "a", status=status)
    write_json(run / "traces" / "one" / "trace.json", {"format_version": 1, "complete": False})
    age(run, -FRESH - 60)
    assert why_busy(run) is None
    delete(run, tmp_path)


def test_the_size_of_a_folder_is_the_sum_over_its_files(tmp_path: Path) -> None:
    run = make(tmp_path, "a")
    (run / "traces" / "one" / "part-00000.parquet").write_bytes(b"x" * 12345)
    (run / "link").symlink_to(run / "traces")
    rest = (run / "run.json").stat().st_size + (run / "traces" / "one" / "trace.json").stat().st_size
    assert folder_size(run) == 12345 + rest


def test_a_damaged_trace_can_be_deleted(tmp_path: Path) -> None:
    run = make(tmp_path, "a")
    broken = run / "traces" / "one"
    (broken / "trace.json").write_text("{")
    age(run, FRESH + 60)
    delete(broken, tmp_path)
    (run / "run.json").write_text("{")
    delete(run, tmp_path)
    assert all_paths(tmp_path) == []
