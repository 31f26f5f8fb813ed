"""Run folders: their layout; list, read, rename and delete them. File contents are checked, never trusted."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deediff.errors import UserError
from deediff.json_files import read_json

FORMAT_VERSION = 1
FRESH = 15 * 60  # seconds since the last write within which a training or sampling job counts as running
NAME = re.compile(r"[\w+=-][\w.+=-]{0,119}", re.ASCII)  # of a run or trace: one path component, not hidden


@dataclass(frozen=True)
class Run:
    """One run folder."""

    path: Path
    info: dict[str, Any]  # run.json
    checkpoints: list[Path]  # newest last
    traces: list[Path] = field(default_factory=list)  # folders that hold a trace.json

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def status(self) -> str:
        """The status in run.json; `interrupted` for a training that stopped writing."""
        status = str(self.info.get("status") or "unknown")
        return "interrupted" if status == "training" and not is_training(self) else status

    @property
    def has_exits(self) -> bool:
        """Whether the model has exits, judged by run.json."""
        parameters = self.info.get("parameters")
        return not isinstance(parameters, dict) or bool(parameters.get("uem"))


def read_run(path: Path) -> Run:
    """Raises UserError when the folder holds no readable run.json."""
    info = read_json(path / "run.json")
    if info.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path / 'run.json'}: format_version is {info.get('format_version')}, expected {FORMAT_VERSION}"
        )
    traces = sorted(p.parent for p in (path / "traces").glob("*/trace.json"))
    return Run(path, info, numbered_checkpoints(path), traces)


def list_runs(root: Path) -> tuple[list[Run], list[str]]:
    """Readable runs in `root`, sorted by name, and one message per unreadable run."""
    runs, problems = [], []
    for file in sorted(root.glob("*/run.json")):
        try:
            runs.append(read_run(file.parent))
        except UserError as error:
            problems.append(str(error))
    return runs, problems


def written(folder: Path) -> float:
    """When the run.json or trace.json of a run or trace was last written, in seconds since 1970; 0.0 without one."""
    for name in ("run.json", "trace.json"):
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def newest_first(folders: Iterable[Path]) -> list[Path]:
    """Runs or traces by `written`, those of the same minute by name: a copied folder has the time of its copy."""
    return sorted(folders, key=lambda folder: (-(written(folder) // 60), folder.name))


def is_fresh(folder: Path, now: float | None = None) -> bool:
    """Whether any file in the folder was written within FRESH seconds of now; a later date is no sign."""
    newest = max((file.stat().st_mtime for file in _files(folder)), default=0.0)
    return abs((time.time() if now is None else now) - newest) < FRESH


def is_training(run: Run) -> bool:
    """Whether a trainer still writes to the run. A killed trainer counts as running until its files are not fresh."""
    own = [run.path / "run.json", run.path / "metrics.parquet", *run.checkpoints[-1:]]
    newest = max((file.stat().st_mtime for file in own if file.exists()), default=0.0)
    return run.info.get("status") == "training" and abs(time.time() - newest) < FRESH


def why_busy(folder: Path) -> str | None:
    """The job that still writes to this run or trace, as a sentence; None if there is none."""
    for file in [folder / "trace.json", *(folder / "traces").glob("*/trace.json")]:
        if file.exists() and not _field(file, "complete") and is_fresh(file.parent):
            return f"a sampling job is still writing {file.parent.name}"
    if _field(folder / "run.json", "format_version") == FORMAT_VERSION and is_training(read_run(folder)):
        return "the run is still being trained"
    return None


def _field(file: Path, key: str) -> Any:
    """A field of a JSON file; None if the file is missing or damaged, so that it can still be deleted."""
    try:
        return read_json(file).get(key)
    except UserError:
        return None


def folder_size(folder: Path) -> int:
    """Total size of its files in bytes."""
    return sum(file.stat().st_size for file in _files(folder))


def rename(folder: Path, name: str, root: Path) -> Path:
    """Rename a run or trace in `root`; returns the new path.

    Raises UserError when the name is invalid or taken, or a job still writes there.
    """
    _check_inside(folder, root)
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is not a valid folder name: use letters, digits, . _ + - = and no leading dot")
    new = folder.with_name(name)
    if new == folder:
        return folder
    if new.exists():
        raise UserError(f"{new} exists already: choose another name")
    _check_idle(folder, "renamed")
    try:
        folder.rename(new)
    except OSError as error:
        raise UserError(f"{folder} could not be renamed ({error.strerror})") from None
    return new


def delete(folder: Path, root: Path) -> None:
    """Delete a run or trace in `root`. It is first renamed to a hidden name, so no list shows it half deleted.

    Raises UserError when the folder is neither, or a job still writes there.
    """
    _check_inside(folder, root)
    _check_idle(folder, "deleted")
    doomed = folder.with_name(f".deleted-{uuid.uuid4().hex}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise UserError(f"{folder} could not be deleted ({error.strerror}: {error.filename})") from None


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file


def _check_inside(folder: Path, root: Path) -> None:
    """Raises UserError unless the folder is root/<run> or root/<run>/traces/<trace> and no symbolic link."""
    real, home = folder.resolve(), root.resolve()
    is_run = real.parent == home and (real / "run.json").is_file()
    is_trace = real.parent.name == "traces" and real.parents[2] == home and (real / "trace.json").is_file()
    if folder.is_symlink() or not (is_run or is_trace):
        raise UserError(f"{folder} is not a run or trace in {root}: only those can be renamed or deleted")


def _check_idle(folder: Path, action: str) -> None:
    if (reason := why_busy(folder)) is not None:
        raise UserError(f"{folder} cannot be {action}: {reason}; stop it, or wait until it ends")


def numbered_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints (weights and JSON) of a run folder, newest last."""
    files = (run / "checkpoints").glob("*.safetensors")
    complete = [p for p in files if p.stem.isdecimal() and p.with_suffix(".json").exists()]
    return sorted(complete, key=lambda p: int(p.stem))
