"""The cohort: the samples that the figures count, chosen in the sidebar or by a brush."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import streamlit as st

from app.state import cache
from app.state.choice import click
from deediff.errors import UserError
from deediff.traces.cohort import Cohort, limit, samples_from_text, samples_to_text
from deediff.traces.cohort_file import NamedCohort, delete_cohort, keep_cohort, read_cohorts
from deediff.traces.reader import Trace

KEY = "samples"  # in the URL as in the session: ranges, after an optional name and a colon; or a kept cohort's name
UNKEPT = "cohorts of this session"  # session state: run → cohorts of runs whose folder cannot be written
LONGEST = 1500  # characters of a cohort's numbers in a link; a longer one is linked by its name


def cohorts_of(run: Path) -> dict[str, NamedCohort]:
    """The named cohorts of a run. Raises UserError when its file is damaged."""
    return read_cohorts(run) | st.session_state.get(UNKEPT, {}).get(run, {})


def keep(run: Path, cohort: NamedCohort, instead_of: str | None = None) -> str:
    """Keep a cohort in the run's folder; where that cannot be written, in this session, which the answer then says.

    Raises UserError when its name is taken.
    """
    if cohort.name in cohorts_of(run) and cohort.name != instead_of:
        raise UserError(f"a cohort “{cohort.name}” exists already: choose another name")
    try:
        if instead_of in st.session_state.get(UNKEPT, {}).get(run, {}):
            raise UserError(f"“{instead_of}” is not in {run}")
        keep_cohort(run, cohort, instead_of)
    except UserError as error:
        here = st.session_state.setdefault(UNKEPT, {}).setdefault(run, {})
        here.pop(instead_of, None)
        here[cohort.name] = cohort
        return f"“{cohort.name}” is kept in this browser tab only: {error}."
    return ""


def forget(run: Path, name: str) -> None:
    """Delete a named cohort. Raises UserError where the run's folder cannot be written."""
    if st.session_state.get(UNKEPT, {}).get(run, {}).pop(name, None) is None:
        delete_cohort(run, name)


def cohort_text(cohort: NamedCohort) -> str:
    """A named cohort in the URL: with its numbers, so that it can be opened elsewhere, unless they are very many."""
    return cohort.name if len(cohort.samples) > LONGEST else f"{cohort.name}:{cohort.samples}"


def split_name(text: str, kept: Mapping[str, NamedCohort]) -> tuple[str, tuple[int, ...]]:
    """'hard:3,7-9', or the name of a kept cohort → name, sample numbers. Raises UserError for any other text."""
    if text in kept:
        return text, kept[text].numbers
    name, colon, numbers = text.rpartition(":")
    return (name if colon else ""), samples_from_text(numbers)


def limited(trace: Trace, numbers: tuple[int, ...]) -> Cohort:
    """A trace with these samples alone. Raises UserError as `limit`."""
    return _limited(Path(str(trace.path)), cache.stamp(trace), numbers)


@lru_cache(32)
def _limited(folder: Path, stamp: int, numbers: tuple[int, ...]) -> Cohort:
    return limit(cache.get_trace(folder), numbers)


def others(trace: Trace, numbers: tuple[int, ...]) -> tuple[int, ...]:
    """The samples of a trace that are not among these."""
    there = np.concatenate([found for found, _ in trace.iter_exit_layers()])
    return tuple(map(int, np.setdiff1d(there, numbers)))


def choose_cohort(numbers: list[int]) -> None:
    """Make these samples the cohort; for callbacks. None of them: all samples."""
    click({KEY: samples_to_text(numbers)})


def choose_named(cohort: NamedCohort | None) -> None:
    """Make this the cohort; for callbacks. None: all samples."""
    click({KEY: "" if cohort is None else cohort_text(cohort)})
