"""Where a run keeps its files; listing and reading them, never trusting what is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deediff.checkpoints import numbered_checkpoints, read_json
from deediff.errors import UserError

FORMAT_VERSION = 1


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
