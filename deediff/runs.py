"""Where a run keeps its files; listing, reading, renaming and deleting them, never trusting what is read."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deediff.errors import UserError
from deediff.json_files import read_json

FORMAT_VERSION = 1
FRESH = 15 * 60  # seconds after its last file within which a training or a sampling counts as going on
NAME = re.compile(r"[\w+=-][\w.+=-]{0,119}", re.ASCII)  # of a run or a trace: a plain folder name, not hidden


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
        """As run.json says, but `training` only while somebody does."""
        status = str(self.info.get("status") or "unknown")
        return "interrupted" if status == "training" and not is_training(self) else status

    @property
    def has_exits(self) -> bool:
        """Whether its network can be left early, as far as run.json tells."""
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
    """Every readable run below `root`, by name, and what was wrong with the others."""
    runs, problems = [], []
    for file in sorted(root.glob("*/run.json")):
        try:
            runs.append(read_run(file.parent))
        except UserError as error:
            problems.append(str(error))
    return runs, problems


def is_fresh(folder: Path, now: float | None = None) -> bool:
    """Whether something in the folder was written in the last quarter of an hour."""
    newest = max((file.stat().st_mtime for file in _files(folder)), default=0.0)
    return (time.time() if now is None else now) - newest < FRESH


def is_training(run: Run) -> bool:
    """Whether a trainer still writes here; one that was killed is found out once its files are no longer fresh."""
    own = [run.path / "run.json", run.path / "metrics.parquet", *run.checkpoints[-1:]]
    newest = max((file.stat().st_mtime for file in own if file.exists()), default=0.0)
    return run.info.get("status") == "training" and time.time() - newest < FRESH


def why_busy(folder: Path) -> str | None:
    """Who still writes into this run or trace, by what its files say; None when nobody does."""
    for file in [folder / "trace.json", *(folder / "traces").glob("*/trace.json")]:
        if file.exists() and not _says(file, "complete") and is_fresh(file.parent):
            return f"a sampling command still writes {file.parent.name}"
    if _says(folder / "run.json", "format_version") == FORMAT_VERSION and is_training(read_run(folder)):
        return "it is still being trained"
    return None


def _says(file: Path, key: str) -> Any:
    """A field of a JSON file; None when it is not there or damaged, which must not keep it from being deleted."""
    try:
        return read_json(file).get(key)
    except UserError:
        return None


def folder_size(folder: Path) -> int:
    """Bytes of everything in it."""
    return sum(file.stat().st_size for file in _files(folder))


def rename(folder: Path, name: str, root: Path) -> Path:
    """Give a run or a trace below `root` another name; returns its new path.

    Raises UserError when the name is no plain folder name or is taken, or somebody writes there.
    """
    _check_ours(folder, root)
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a folder: use letters, digits, . _ + - =, and start with no dot")
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
    """Remove a run or a trace below `root` and everything in it; it is gone from every list at once.

    Raises UserError when it is anything else, or somebody writes there.
    """
    _check_ours(folder, root)
    _check_idle(folder, "deleted")
    doomed = folder.with_name(f".deleted-{uuid.uuid4().hex}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise UserError(f"{folder} could not be deleted ({error.strerror}: {error.filename})") from None


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, whoever removes some meanwhile."""
    for file in folder.rglob("*"):
        if file.is_file():
            yield file


def _check_ours(folder: Path, root: Path) -> None:
    """Raises UserError unless this is root/<run> or root/<run>/traces/<trace>, and no link to elsewhere."""
    real, home = folder.resolve(), root.resolve()
    is_run = real.parent == home and (real / "run.json").is_file()
    is_trace = real.parent.name == "traces" and real.parents[2] == home and (real / "trace.json").is_file()
    if folder.is_symlink() or not (is_run or is_trace):
        raise UserError(f"{folder} is no run or trace of {root}: only those can be renamed or deleted here")


def _check_idle(folder: Path, what: str) -> None:
    if (reason := why_busy(folder)) is not None:
        raise UserError(f"{folder} cannot be {what} now: {reason}; stop it first, or wait until it ends")


def numbered_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run folder (weights and JSON), newest last."""
    files = (run / "checkpoints").glob("*.safetensors")
    whole = [p for p in files if p.stem.isdigit() and p.with_suffix(".json").exists()]
    return sorted(whole, key=lambda p: int(p.stem))
