"""Which runs and traces are new: dates, the order of lists, and the run that the explorer opens with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from app.state import cache
from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.runs import Run, written


def date_of(folder: Path, now: float | None = None) -> str:
    """The date of a run or trace in a list: the time of day where it is of today, the year where it is another one's.

    In the time zone of the server. Empty where there is none.
    """
    when = written(folder)
    if not when:
        return ""
    then, today = time.localtime(when), time.localtime(time.time() if now is None else now)
    same_day = then[:3] == today[:3]
    return time.strftime("%H:%M" if same_day else "%d %b" if then[0] == today[0] else "%d %b %Y", then)


def dated(folders: Iterable[Path]) -> dict[str, str]:
    """Name → name and date, for a list."""
    return {folder.name: " · ".join(filter(None, (folder.name, date_of(folder)))) for folder in folders}


def first_run(runs: Sequence[Run]) -> str:
    """The run to open with: the last one used on this machine, else the best described."""
    names = {run.name for run in runs}
    last = _last_used().get(str(cache.runs_root().resolve()))
    return last if last in names else max(runs, key=_described).name


def remember_run(name: str) -> None:
    """Make this the run that the explorer opens with; where that cannot be written, nothing changes."""
    root, used = str(cache.runs_root().resolve()), _last_used()
    if used.get(root) != name:
        with suppress(OSError, UserError):
            write_json(_state_file(), used | {root: name})


def _described(run: Run) -> tuple[int, int]:
    """The kinds of files that pages draw from, and the number of traces."""
    kinds = (run.checkpoints, run.traces, (run.path / "plans").is_dir(), (run.path / "metrics.parquet").exists())
    return sum(map(bool, kinds)), len(run.traces)


def _last_used() -> dict[str, object]:
    """Folder of runs → name of a run; empty where the file is missing or damaged."""
    try:
        return read_json(_state_file())
    except UserError:
        return {}


def _state_file() -> Path:
    """In the user's folder of states, by the XDG convention."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "deediff" / "explorer.json"
