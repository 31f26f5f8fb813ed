"""The run folder that an import writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deediff.errors import UserError
from deediff.json_files import write_json
from deediff.runs import FORMAT_VERSION


def check_new_run(out: Path) -> None:
    """Raises UserError if the folder already holds a run."""
    if (out / "run.json").exists():
        raise UserError(f"{out} already holds a run: choose another --out")


def write_imported_run(out: Path, **fields: Any) -> None:
    """Write run.json with status `imported`."""
    write_json(out / "run.json", {"format_version": FORMAT_VERSION, "status": "imported", **fields})
