"""Every plan that a search has measured (`RUN/trials.json`), for figures: cost, score and steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deediff.errors import UserError
from deediff.json_files import FORMAT_VERSION, read_json, write_json


class Trial(NamedTuple):
    """One plan."""

    evaluations: float  # cost of one image in evaluations of the full network
    score: float  # that the search minimises, on its own noise
    steps: str  # see `deediff.plans.text`


def write_trials(run: Path, choices: str, trials: Sequence[Trial]) -> None:
    """Replace the trials of one kind of search."""
    file = run / "trials.json"
    found: dict[str, Any] = read_json(file) if file.exists() else {"format_version": FORMAT_VERSION}
    rows = [[round(trial.evaluations, 4), round(trial.score, 4), trial.steps] for trial in trials]
    write_json(file, found | {choices: rows})


def read_trials(run: Path) -> dict[str, list[Trial]]:
    """The trials of each kind of search; empty where there is no file. Raises UserError when it is damaged."""
    file = run / "trials.json"
    if not file.exists():
        return {}
    content = read_json(file)
    try:
        return {
            str(kind): [Trial(float(cost), float(score), str(steps)) for cost, score, steps in rows]
            for kind, rows in content.items()
            if kind != "format_version"
        }
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{file} is not a readable list of trials ({error}): run 'deediff search {run}' again"
        ) from None
