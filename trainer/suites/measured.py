"""What the suites in one folder have measured, and how two measurements compare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deediff.errors import UserError
from trainer.suites.results import Fields, read_results
from trainer.suites.tables import SUITES

NEAR = 0.1  # numbers that differ by less than this share are called nearly equal

Answer = bool | None  # None: the intervals overlap, so nobody can tell


class NotMeasured(Exception):
    """A row that a claim needs is in no results file."""


@dataclass(frozen=True)
class Value:
    """A measure of quality with its 95 % interval; lower is better."""

    value: float
    low: float
    high: float

    def worse_than(self, other: Value) -> Answer:
        """Beyond both intervals."""
        if self.low > other.high:
            return True
        return False if self.high < other.low else None

    def near(self, other: Value) -> Answer:
        """Better, or worse by less than a tenth; None when it is worse by more, but not beyond both intervals."""
        if self.value < (1 + NEAR) * other.value:
            return True
        return False if self.worse_than(other) else None

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def every(*answers: Answer) -> Answer:
    """Whether all are true: no as soon as one is not, unknown as long as one is unknown."""
    if False in answers:
        return False
    return None if None in answers else True


class Results:
    """The results files of one folder. Raises UserError where there is none, one is damaged, or scales are mixed."""

    def __init__(self, folder: Path):
        self._rows: dict[str, Fields] = {}
        self._trends: dict[str, Fields] = {}  # the same names, recorded in full and without exits
        found = [(name, file) for name in SUITES if (file := folder / f"suite-{name}.json").exists()]
        if not found:
            raise UserError(f"{folder} holds no results of suites: python -m trainer.run suite:table1 --out {folder}")
        results = {name: read_results(file) for name, file in found}
        if len(scales := {content.get("scale") for content, _ in results.values()}) > 1:
            raise UserError(
                f"{folder} holds results of several scales ({', '.join(map(str, scales))}): give one --out each"
            )
        for name, (_, rows) in results.items():
            measured = {row: fields.fields("measured") for row, fields in rows.items()}
            (self._trends if name == "trends" else self._rows).update(measured)

    def __contains__(self, name: str) -> bool:
        return name in self._rows

    def __getitem__(self, name: str) -> Fields:
        """What was measured for a row. Raises NotMeasured."""
        return _get(self._rows, name)

    def uncertainty(self, name: str) -> list[list[float]]:
        """Mean u by layer, in the first, second and last third of the steps. Raises NotMeasured."""
        return list(_get(self._trends, name)["mean_uncertainty"])

    def quality(self, name: str) -> Value:
        """Of a row's images, by the first metric of its scale. Raises NotMeasured."""
        for key, value in self[name].items():
            if isinstance(value, dict) and "floor" in value:
                parts = [self[name].fields(key)[part] for part in ("value", "low", "high")]
                if None in parts:
                    raise NotMeasured(f"“{name}” with an interval")
                return Value(*map(float, parts))
        raise NotMeasured(f"“{name}” with a quality")

    def pairs(self, *pairs: tuple[str, str]) -> list[tuple[str, str]]:
        """Those of which both rows are measured. Raises NotMeasured when the first pair is not."""
        for name in pairs[0]:
            self[name]
        return [pair for pair in pairs if all(name in self for name in pair)]

    def saved(self, name: str) -> str:
        """A row's layer reduction, in words."""
        return f"−{self[name]['layer_reduction_pct']:.1f} % layers"

    def qualities(self, name: str, other: str) -> str:
        """Of two rows, in words."""
        return f"quality {self.quality(name)} against {self.quality(other)}"


def _get(rows: dict[str, Fields], name: str) -> Fields:
    if name not in rows:
        raise NotMeasured(f"“{name}”")
    return rows[name]
