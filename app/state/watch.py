"""Changes in the folder of runs, found by comparing what it holds now with what the page was drawn from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Contents:
    """What a folder of runs holds: names with the time of their last change. No file is opened."""

    runs: dict[str, int] = field(default_factory=dict)  # name → of run.json and the checkpoints
    traces: dict[str, int] = field(default_factory=dict)  # run/trace → of trace.json and the folder's files

    def new_since(self, before: Contents) -> list[str]:
        """Runs, and traces (run/trace) of runs that were there before, that were not."""
        runs = [name for name in self.runs if name not in before.runs]
        return runs + [name for name in self.traces if name not in before.traces and name.split("/")[0] not in runs]


def look(root: Path) -> Contents:
    """The contents now. Some hundred file times, so that it may be called every few seconds."""
    runs, traces = {}, {}
    for run in _folders(root):
        if not (changed := _changed(run / "run.json", run / "checkpoints", run / "plans")):
            continue
        runs[run.name] = changed
        for trace in _folders(run / "traces"):
            if (own := _changed(trace / "trace.json")) > 0:
                traces[f"{run.name}/{trace.name}"] = own + _changed(trace)
    return Contents(runs, traces)


def _folders(folder: Path) -> Iterable[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError:
        return []


def _changed(first: Path, *others: Path) -> int:
    """Sum of the times of the last change, in ns; 0 where the first file does not exist."""
    try:
        total = first.stat().st_mtime_ns
    except OSError:
        return 0
    for file in others:
        with suppress(OSError):
            total += file.stat().st_mtime_ns
    return total
