"""What the tables of runs and traces read: opened once, and never waited for.

How far a trace moved its images takes thousands of PNGs, so a worker counts it in the background.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app.state import cache
from deediff.analysis.compare import image_change
from deediff.errors import UserError
from deediff.quality.pairs import find_full
from deediff.quality.results import Quality, read_quality
from deediff.runs import Run
from deediff.traces.reader import Trace

Pair = tuple[str, str, int, int]  # both folders, and when they were last written


def open_traces(runs: Iterable[Run], problems: list[str]) -> list[Trace]:
    """Every trace of these runs whose summary can be read; adds a sentence for each of the others."""
    traces = []
    for folder in [folder for run in runs for folder in run.traces]:
        try:
            trace = cache.open_trace(folder)
            assert trace.summary is not None  # read now, so that one sentence replaces every panel's failure
        except UserError as error:
            problems.append(str(error))
            continue
        traces.append(trace)
    return traces


def read_qualities(traces: Iterable[Trace], problems: list[str]) -> dict[str, list[Quality]]:
    """What was evaluated, by run/trace; a damaged file counts as none and adds a sentence."""
    found: dict[str, list[Quality]] = {}
    for trace in traces:
        found[key_of(trace)] = []
        try:
            found[key_of(trace)] = read_quality(trace.path)
        except UserError as error:
            problems.append(str(error))
    return found


def key_of(trace: Trace) -> str:
    """How a trace is named where several runs are shown: run/trace."""
    return f"{trace.path.parents[1].name}/{trace.path.name}"


@st.cache_resource(show_spinner=False)
def changes() -> Changes:
    """One for the whole server."""
    return Changes()


class Changes:
    """Answers what it knows at once, and works out the rest, one pair of traces after the other."""

    def __init__(self) -> None:
        self._futures: dict[Pair, Future[float | None]] = {}
        self._worker = ThreadPoolExecutor(1, "image changes")

    def ask(self, trace: Trace, full: Trace) -> float | None:
        """Mean |difference| in grey levels, 0 … 255; None while it is counted, and where there are no images."""
        if trace.path == full.path:
            return 0.0
        future = self._future(trace, full)
        if not future.done():
            return None
        try:
            return future.result()
        except Exception as error:  # a damaged image: the table leaves its cell empty, the log says why
            level = logging.WARNING if isinstance(error, (UserError, OSError)) else logging.ERROR
            logging.getLogger(__name__).log(level, "no change of %s from %s: %s", trace.path, full.path, error)
            return None

    def is_known(self, trace: Trace, full: Trace) -> bool:
        """Whether `ask` has its last word."""
        return trace.path == full.path or self._future(trace, full).done()

    def _future(self, trace: Trace, full: Trace) -> Future[float | None]:
        pair = (str(trace.path), str(full.path), trace.path.stat().st_mtime_ns, full.path.stat().st_mtime_ns)
        if pair not in self._futures:
            self._futures[pair] = self._worker.submit(image_change, trace, full)
        return self._futures[pair]


def u_deviation(trace: Trace) -> NDArray[np.float64]:
    """(S, N) standard deviation of u over samples, NaN where none arrived."""
    s = trace.summary
    count = np.where(s.u_count > 0, s.u_count, np.nan)
    return np.sqrt(np.maximum(s.u_square_sum / count - (s.u_sum / count) ** 2, 0))


def full_of(trace: Trace) -> Trace | None:
    """The full network's trace of the same seeds, remembered for as long as nothing in the run's traces changes."""
    folder = _full_of(str(trace.path), cache.stamp(trace), int(trace.path.parent.stat().st_mtime_ns))
    return None if folder is None else cache.open_trace(Path(folder))


@st.cache_resource(max_entries=64, show_spinner=False)
def _full_of(folder: str, stamp: int, others: int) -> str | None:
    full = find_full(cache.open_trace(Path(folder)))
    return None if full is None else str(full.path)
