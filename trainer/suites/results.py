"""Results files of suites, never trusted when read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deediff.errors import UserError
from deediff.json_files import read_json

REPAIR = "it is damaged; delete it and run its suite again, which repeats nothing that was trained or sampled"


class Fields(dict[str, Any]):
    """A JSON object out of a results file. Asked for what it lacks, it raises UserError."""

    def __init__(self, content: Any, where: str):
        if not isinstance(content, dict):
            raise UserError(f"{where} is {str(content)[:30]!r}, expected a JSON object: {REPAIR}")
        super().__init__(content)
        self.where = where

    def __missing__(self, key: str) -> Any:
        raise UserError(f"{self.where} lacks {key!r}: {REPAIR}")

    def fields(self, key: str) -> Fields:
        """The object under a key."""
        return Fields(self[key], f"{self.where}, {key}")


def read_results(path: Path) -> tuple[Fields, dict[str, Fields]]:
    """A results file, and its rows by name. Raises UserError when it is missing or damaged."""
    content = Fields(read_json(path), str(path))
    if not isinstance(content["rows"], list):
        raise UserError(f"{path} holds no list of rows: {REPAIR}")
    rows = [Fields(row, f"{path}, row {number}") for number, row in enumerate(content["rows"])]
    return content, {row["name"]: row for row in rows}
