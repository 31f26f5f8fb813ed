"""The cohort: the samples that the figures count, chosen in the sidebar or by a brush."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from app.state import cache
from app.state.choice import click
from deediff.traces.cohort import Cohort, limit, samples_from_text, samples_to_text
from deediff.traces.reader import Trace

KEY = "samples"  # in the URL as in the session: ranges, after an optional name and a colon


def split_name(text: str) -> tuple[str, tuple[int, ...]]:
    """'hard:3,7-9' → name, sample numbers. Raises UserError when the numbers are malformed."""
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
