"""Traces of several runs: opened, named, evaluated, and paired with the full network's trace of the same noise."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app.state import cache
from app.state.selection import Selection
from deediff.errors import UserError
from deediff.quality.results import Quality, read_quality
from deediff.runs import Run
from deediff.traces.reader import Trace


def open_traces(runs: Iterable[Run], problems: list[str]) -> list[Trace]:
    """Every trace of these runs whose summary can be read; adds a sentence for each of the others."""
    traces = []
    for folder in [folder for run in runs for folder in run.traces]:
        try:
            trace = cache.get_trace(folder)
            assert trace.summary is not None  # read here, so that one sentence replaces an error in every panel
        except UserError as error:
            problems.append(str(error))
            continue
        traces.append(trace)
    return traces


def read_qualities(traces: Iterable[Trace], problems: list[str]) -> dict[str, list[Quality]]:
    """The evaluations of each trace, by run/trace; a damaged file counts as none and adds a sentence."""
    found: dict[str, list[Quality]] = {}
    for trace in traces:
        found[key_of(trace)] = []
        try:
            found[key_of(trace)] = read_quality(trace.path)
        except UserError as error:
            problems.append(str(error))
    return found


def damaged_images(trace: Trace) -> str | None:
    """A sentence about its damaged files of images; None where there are none."""
    damaged = [problem for problem in trace.problems if problem.startswith("samples-")]
    return f"Images of {trace.path.name} are damaged: {damaged[0]}." if damaged else None


def why_no_images(trace: Trace) -> str:
    """Why a trace shows no images: they are damaged, or were never there."""
    if trace.image_parts and "latent" in trace.samples(range(1)):
        return f"{trace.path.name} holds latents, not images: read them with `trace.latents(range(8))` in Python."
    missing = f"The images of {trace.path.name} are missing: not recorded, or not copied with the trace."
    return damaged_images(trace) or missing


def key_of(trace: Trace) -> str:
    """The name of a trace among those of several runs: run/trace."""
    return f"{trace.path.parents[1].name}/{trace.path.name}"


def closest_measured(selection: Selection) -> Trace | None:
    """The trace sampled at the threshold closest to the slider's (closed loop), of several the one of most samples."""
    traces = [selection.trace, *selection.siblings] if selection.trace is not None else []
    candidates = [(tau, t) for t in traces if t is not None and (tau := t.threshold) is not None]
    if selection.threshold is None or not candidates:
        return None
    aim = selection.threshold
    return min(candidates, key=lambda pair: (abs(pair[0] - aim), -pair[1].meta.num_samples))[1]


def uncertainty_deviation(trace: Trace) -> NDArray[np.float64]:
    """(S, N) standard deviation of u over samples, NaN where none arrived."""
    s = trace.summary
    count = np.where(s.u_count > 0, s.u_count, np.nan)
    return np.sqrt(np.maximum(s.u_square_sum / count - (s.u_sum / count) ** 2, 0))


def full_of(trace: Trace) -> Trace | None:
    """The full network's trace of the same noise; cached until the run's folder of traces changes."""
    folder = _full_of(str(trace.path), cache.stamp(trace), int(trace.path.parent.stat().st_mtime_ns))
    return None if folder is None else cache.get_trace(Path(folder))


@st.cache_resource(max_entries=64, show_spinner=False)
def _full_of(folder: str, stamp: int, others: int) -> str | None:
    from deediff.quality.pairs import find_full  # imports torch, which the first page does without

    full = find_full(cache.get_trace(Path(folder)))
    return None if full is None else str(full.path)
