"""The results files of suites: read with checks, and compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deediff.errors import UserError
from deediff.json_files import read_json
from trainer.suites.tables import SUITES

REPAIR = "it is damaged; delete it and run its suite again, which repeats no training and no sampling"
TOLERANCE = 0.1  # relative difference up to which two values count as nearly equal

Verdict = bool | None  # None: undecided, because intervals overlap


class NotMeasured(Exception):
    """A row that a claim needs is in no results file."""


class Fields(dict[str, Any]):
    """A JSON object of a results file. A missing key raises UserError."""

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


@dataclass(frozen=True)
class Measurement:
    """A quality with its 95 % interval; lower is better."""

    value: float
    low: float
    high: float

    def worse_than(self, other: Measurement) -> Verdict:
        """Whether it is worse, with intervals that do not overlap."""
        if self.low > other.high:
            return True
        return False if self.high < other.low else None

    def near(self, other: Measurement) -> Verdict:
        """Whether it is better, or worse by less than a tenth. None: worse by more, with overlapping intervals."""
        if self.value < (1 + TOLERANCE) * other.value:
            return True
        return False if self.worse_than(other) else None

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def all_of(*verdicts: Verdict) -> Verdict:
    """False if one is false, else None if one is undecided, else True."""
    if False in verdicts:
        return False
    return None if None in verdicts else True


class SuiteResults:
    """The results files of a folder. Raises UserError if there is none, one is damaged, or their scales differ."""

    def __init__(self, folder: Path):
        self._rows: dict[str, Fields] = {}
        self._trends: dict[str, Fields] = {}  # rows of the suite trends, which have the same names
        found = [(name, file) for name in SUITES if (file := folder / f"suite-{name}.json").exists()]
        if not found:
            raise UserError(f"{folder} holds no results of suites: python -m trainer.run suite:table1 --out {folder}")
        results = {name: read_results(file) for name, file in found}
        if len(scales := {content.get("scale") for content, _ in results.values()}) > 1:
            raise UserError(
                f"{folder} holds results of several scales ({', '.join(map(str, scales))}): use one --out per scale"
            )
        for name, (_, rows) in results.items():
            measured = {row: fields.fields("measured") for row, fields in rows.items()}
            (self._trends if name == "trends" else self._rows).update(measured)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> Fields:
        """The measured values of a row. Raises NotMeasured."""
        return _get(self._rows, name)

    def uncertainty(self, name: str) -> list[list[float]]:
        """Mean u by layer, in the first, second and last third of the steps. Raises NotMeasured."""
        return list(_get(self._trends, name)["mean_uncertainty"])

    def quality(self, name: str) -> Measurement:
        """The first metric of a row. Raises NotMeasured."""
        for key, value in self[name].items():
            if isinstance(value, dict) and "floor" in value:
                parts = [self[name].fields(key)[part] for part in ("value", "low", "high")]
                if None in parts:
                    raise NotMeasured(f"“{name}” with an interval")
                return Measurement(*map(float, parts))
        raise NotMeasured(f"“{name}” with a quality")

    def measured_pairs(self, *pairs: tuple[str, str]) -> list[tuple[str, str]]:
        """The pairs with results of both rows. Raises NotMeasured when the first pair is not among them."""
        for name in pairs[0]:
            self[name]
        return [pair for pair in pairs if all(name in self for name in pair)]

    def saved_text(self, name: str) -> str:
        """The layer reduction of a row, as text."""
        return f"−{self[name]['layer_reduction_pct']:.1f} % layers"

    def quality_text(self, name: str, other: str) -> str:
        """The qualities of two rows, as text."""
        return f"quality {self.quality(name)} against {self.quality(other)}"


def _get(rows: dict[str, Fields], name: str) -> Fields:
    if name not in rows:
        raise NotMeasured(f"“{name}”")
    return rows[name]
