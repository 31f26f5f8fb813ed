"""The named cohorts of a run, in its cohorts.json: sample numbers, a note, and the trace that they were chosen on."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from deediff.errors import UserError
from deediff.json_files import read_json, write_json
from deediff.storage import AnyPath
from deediff.traces.cohort import read_samples, samples_from_text

FILE, FORMAT_VERSION = "cohorts.json", 1
NAME = re.compile(r"(?=.*[^\W\d])[\w .+=-]{1,40}")  # with a letter: a number would be a sample
NOTE = 200  # characters
_LOCK = threading.Lock()  # of writers in this process


@dataclass(frozen=True)
class NamedCohort:
    """Some samples under a name. Raises UserError for an invalid name or malformed samples."""

    name: str
    samples: str  # ranges, as of `samples_to_text`
    note: str = ""
    trace: str = ""  # folder of the trace on which they were chosen
    created: str = ""  # date and time, of this machine

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise UserError(
                f"“{self.name[:50]}” is no name of a cohort: use up to 40 letters, digits, spaces and . _ + = -, "
                "at least one of them a letter"
            )
        samples_from_text(self.samples)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Ascending."""
        return samples_from_text(self.samples)


def read_cohorts(run: AnyPath) -> dict[str, NamedCohort]:
    """By name, in the order in which they were kept; empty without a file. Raises UserError when it is damaged."""
    file = run / FILE
    if not file.exists():
        return {}
    content = read_json(file)
    rows = content.get("cohorts")
    if content.get("format_version") != FORMAT_VERSION or not isinstance(rows, list):
        raise UserError(f"{file} is no list of cohorts of format_version {FORMAT_VERSION}: restore or delete it")
    try:
        found = [NamedCohort(**{key: str(value) for key, value in row.items()}) for row in rows]
    except (TypeError, AttributeError) as error:
        raise UserError(f"{file} holds a malformed cohort ({error}): restore or delete it") from None
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return {cohort.name: cohort for cohort in found}


def keep_cohort(run: Path, cohort: NamedCohort, instead_of: str | None = None) -> None:
    """Add a cohort, or put it in the place of the one of another name. Raises UserError when its name is taken, or the
    run's folder cannot be written."""

    def change(found: dict[str, NamedCohort]) -> list[NamedCohort]:
        if cohort.name in found and cohort.name != instead_of:
            raise UserError(f"a cohort “{cohort.name}” exists already: choose another name")
        if instead_of in found:
            return [cohort if name == instead_of else old for name, old in found.items()]
        return [*found.values(), cohort]

    _rewrite(run, change)


def delete_cohort(run: Path, name: str) -> None:
    """Remove a cohort; the samples stay. Raises UserError when the run's folder cannot be written."""
    _rewrite(run, lambda found: [cohort for other, cohort in found.items() if other != name])


def samples_named(text: str, run: AnyPath) -> tuple[int, ...]:
    """The samples of a CSV file, or of the cohort of this name. Raises UserError when there is neither."""
    if Path(text).exists():
        return read_samples(Path(text))
    if text in (found := read_cohorts(run)):
        return found[text].numbers
    raise UserError(
        f"{text} is neither a CSV with the column sample nor a cohort of {run}: {', '.join(found) or 'none'}"
    )


def date_and_time() -> str:
    """For `created`."""
    return time.strftime("%Y-%m-%d %H:%M")


def _rewrite(run: Path, change: Callable[[dict[str, NamedCohort]], list[NamedCohort]]) -> None:
    with _LOCK:
        cohorts = [asdict(cohort) for cohort in change(read_cohorts(run))]
        try:
            write_json(run / FILE, {"format_version": FORMAT_VERSION, "cohorts": cohorts})
        except OSError as error:
            raise UserError(f"{run / FILE} cannot be written ({error.strerror})") from None
