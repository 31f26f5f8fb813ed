"""Is it the sample or the timestep? The exit layer's variance, split, for the traces on screen."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

import background
import data
import figures
import findings
from background import Stopped
from charts import chart
from deediff.analysis.trends import timestep_share
from deediff.analysis.variance import Moments, VarianceSplit
from deediff.traces.reader import Trace
from exit_numbers import repeated_by_schedule
from exit_panels import exits_on_screen
from figures import Bars
from panels import heading
from selection import Selection

SHARES = {"timestep": "timestep", "sample": "sample", "rest": "rest", "stays_next": "stays for the next step"}
HELP = (
    "The exit layer's variance over samples and steps, split as in a two-way layout: *timestep* is what a fixed "
    "schedule could follow, *sample* is the same at all of a sample's timesteps, *rest* is interaction and noise. "
    "*Stays* is how much of what the timestep leaves open is still there one step later: noise would not stay. "
    "Intervals: 95 %, over resampled samples."
)


def split(trace: Trace, threshold: float | None, stopped: Stopped, draws: int = 1000) -> VarianceSplit | None:
    """Of the exit layers at a threshold, counted from the recorded u; without one, of those measured.

    None when it was stopped before the last part was read.
    """
    moments = Moments(len(trace.timesteps), 1, draws)
    for layers in _exit_layers(trace, threshold):
        if stopped():
            return None
        moments.add(layers[:, :, None])
    return moments.split()[0]


def _exit_layers(trace: Trace, threshold: float | None) -> Iterator[NDArray[np.integer]]:
    if threshold is None:
        yield from (layers for _, layers in trace.iter_exit_layers())
        return
    for part in trace.parts:
        leaves = trace.uncertainty(part) <= np.float32(threshold)  # (B, S, N)
        yield np.where(leaves.any(axis=-1), leaves.argmax(axis=-1), trace.num_blocks)


def show(selection: Selection) -> None:
    """The panel. It reads rows, so it stands last on its page."""
    trace = selection.trace
    assert trace is not None
    wanted = [("A", trace, selection.threshold, figures.A)]
    if selection.other is not None:
        wanted.append(("B", selection.other, None, figures.B))
    groups, found, missing = [], {}, []
    for letter, t, tau, color in wanted:
        name = f"{letter}, estimated at τ = {tau:g}" if tau is not None else f"{letter}, measured"
        exits = t.summary.exits if tau is None or selection.answer is None else selection.answer.exits
        if (sentence := _why_not(name, t, exits)) is not None:
            missing.append(sentence)
            continue
        key = ("variance", t.path, data.stamp(t), tau)
        answer = background.result(
            f"variance of {letter}", key, partial(split, t, tau), f"{name}: splitting the variance of the exit layers …"
        )
        if answer is None:
            continue
        found[name] = answer
        e = [getattr(answer, field) for field in SHARES]
        groups.append(Bars(name, [x.value for x in e], [x.low for x in e], [x.high for x in e], color))
    if groups:
        first = next(iter(found.values()))
        repeated = repeated_by_schedule(exits_on_screen(selection)[0])
        counted = ", ".join(f"{name}: {s.samples:,} samples × {s.steps} steps" for name, s in found.items())
        subtitle = f"{counted} · one fixed exit layer per timestep would repeat {repeated:.0%} of A's decisions"
        title = findings.about_variance(first)
        heading(title, subtitle, HELP, partial(_table, found), "variance")
        chart(figures.shares(list(SHARES.values()), groups), "plot variance", title)
    for sentence in missing:
        st.info(sentence)


def _why_not(name: str, trace: Trace, exits: NDArray[np.int64]) -> str | None:
    """Why there is nothing to split, or None."""
    if np.count_nonzero(exits.sum(axis=0)) == 1:
        return f"**{name}**: every sample leaves at the same layer at every step, so no exit layer varies."
    if trace.parts:
        return None
    return (
        f"**{name}**: the timestep explains {timestep_share(exits):.0%} of the exit layer's variance. How much the "
        "sample explains needs the rows, which did not come with this trace: sample it again to get them."
    )


def _table(found: dict[str, VarianceSplit]) -> pd.DataFrame:
    rows = []
    for name, answer in found.items():
        for field in ("total", "timestep", "sample", "rest", "stays_all", "stays_next"):
            e = getattr(answer, field)
            rows.append((name, field, e.value, e.low, e.high, answer.samples, answer.steps))
    return pd.DataFrame(rows, columns=["trace", "share", "value", "low", "high", "samples", "steps"])
