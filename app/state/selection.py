"""The one shared selection: run, traces A and B, checkpoint, threshold, timestep, layer, sample.

The sidebar (shell/sidebar.py) makes it in every run of the script; panels read it with `current` and change it with
`select`. All of it is in the URL.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import streamlit as st

from app.state.choice import click
from deediff.runs import Run
from deediff.traces.reader import Trace
from deediff.traces.what_if import WhatIf

HIGHEST = 0.5  # of the thresholds: u is tanh|error| averaged over pixels, and never reaches more
STEP = 0.005  # between two stops of the slider, as in THRESHOLDS
SELECTION = "selection"  # session state


@dataclass(frozen=True)
class Selection:
    """The data of every panel."""

    run: Run
    trace: Trace | None = None  # A
    other: Trace | None = None  # B
    checkpoint: Path | None = None
    threshold: float | None = None  # None where trace A answers no what-if
    answer: WhatIf | None = None  # of A at the threshold
    siblings: list[Trace] = field(default_factory=list)  # further traces of the run from the same noise as A
    step: int = 0  # 0, 1, … into trace A's timesteps
    timestep: int = 0  # the diffusion t of that step
    layer: int | None = None  # 0 … N, where one was chosen
    sample: int | None = None  # number of a sample, where one was chosen
    cohort: str = ""  # the samples that A and B are limited to, as text; empty: all

    def as_link(self) -> dict[str, object]:
        """The values of the URL."""
        beside_itself = self.trace and self.other and self.trace.path == self.other.path  # its other samples
        return {
            "run": self.run.name,
            "trace": self.trace and self.trace.path.name,
            "b": None if self.other is None or beside_itself else self.other.path.name,
            "tau": None if self.threshold is None else f"{self.threshold:g}",
            "t": self.trace and self.timestep,
            "layer": self.layer,
            "sample": self.sample,
            "checkpoint": self.checkpoint and self.checkpoint.stem,
        }

    def describe(self) -> str:
        """Run, traces and threshold, for the line below a saved figure."""
        pair = (("A", self.trace), ("B", self.other))
        words = [f"run {self.run.name}"]
        words += [f"{letter} = {t.path.name}, N = {int(t.summary.samples):,}" for letter, t in pair if t is not None]
        words += [f"samples {self.cohort[:60]}"] if self.cohort else []
        words += [f"what-if τ = {self.threshold:g}"] if self.threshold is not None else []
        return " · ".join(words)

    def step_of(self, trace: Trace) -> int:
        """The step of another trace whose timestep is nearest to the selected one."""
        return int(np.abs(np.asarray(trace.timesteps) - self.timestep).argmin())


def current() -> Selection:
    """The selection of this run of the script."""
    return st.session_state[SELECTION]


def select(
    *,
    timestep: int | None = None,
    layer: int | None = None,
    sample: int | None = None,
    threshold: float | None = None,
    run: str | None = None,
    trace: str | None = None,
    other: str | None = None,
) -> None:
    """Select any of these; the rest stays.

    For callbacks: every panel and the URL follow in the next run of the script. Inside a fragment, or outside a
    callback, call `st.rerun()` afterwards.
    """
    click(
        {
            "t": timestep,
            "layer": layer,
            "sample": sample,
            "tau": threshold,
            "run": run,
            "trace": trace,
            "b": other,
        }
    )


def select_trace(trace: Trace, letter: str) -> None:
    """Make this trace A or B on every page; for callbacks."""
    select(run=trace.path.parents[1].name, **{"trace" if letter == "A" else "other": trace.path.name})  # type: ignore[arg-type]


def stops(trace: Trace) -> tuple[float, float]:
    """Lowest and highest useful stop of the what-if slider: from the lowest threshold that the trace answers to the
    highest at which exits still change."""
    assert trace.what_if_limit is not None
    lowest = max(0.0, float(np.ceil(trace.what_if_limit[0] / STEP - 1e-4) * STEP))
    last = trace.highest_threshold
    highest = HIGHEST if last is None else min(HIGHEST, last)
    return round(lowest, 3), round(max(highest, lowest + STEP), 3)
