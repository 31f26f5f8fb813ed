"""The share of the exit layer's variance explained by timestep and sample, for the traces on screen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.jobs.results import Stopped
from app.state import cache
from app.state.selection import Selection
from app.views.trends import findings
from app.views.trends.exits import exits_on_screen
from app.views.trends.figures.shares import Bars, variance_shares
from app.views.trends.numbers import repeated_by_schedule
from app.widgets import figures, waiting
from app.widgets.panels import Panel, guarded, heading
from app.widgets.plot import chart
from deediff.analysis.trends import timestep_share
from deediff.analysis.variance import MomentSums, VarianceSplit
from deediff.traces.reader import Trace

SHARES = {"timestep": "timestep", "sample": "sample", "rest": "rest", "stays_next": "persists to the next step"}
HELP = (
    "The exit layer's variance over samples and steps, split as in a two-way layout: *timestep* is what a fixed "
    "schedule could follow, *sample* is the same at all of a sample's timesteps, *rest* is interaction and noise. "
    "*Persists* is the share of the variance not explained by the timestep that is the same one step later: noise "
    "would not persist. Intervals: 95 %, over resampled samples."
)


def split_variance(trace: Trace, threshold: float | None, stopped: Stopped, draws: int = 1000) -> VarianceSplit | None:
    """Of the exit layers at a threshold, counted from the recorded u; without one, of those measured.

    None when it was stopped before the last part was read.
    """
    moments = MomentSums(len(trace.timesteps), 1, draws)
    for layers in _exit_layers(trace, threshold):
        if stopped():
            return None
        moments.add(layers[:, :, None])
    return moments.split()[0]


def _exit_layers(trace: Trace, threshold: float | None) -> Iterator[NDArray[np.integer]]:
    if threshold is None:
        yield from (layers for _, layers in trace.iter_exit_layers())
        return
    if trace.meta.signal_exit is not None:
        for part in trace.parts:
            yield np.where(trace.memory(part)[0] <= np.float32(threshold), trace.meta.signal_exit, trace.num_blocks)
        return
    for part in trace.parts:
        exits = trace.uncertainty(part) <= np.float32(threshold)  # (B, S, N)
        yield np.where(exits.any(axis=-1), exits.argmax(axis=-1), trace.num_blocks)


@dataclass(frozen=True)
class _Split:
    """One of the traces on screen, at a threshold or as measured."""

    letter: str
    trace: Trace
    threshold: float | None
    color: str

    @property
    def name(self) -> str:
        source = "measured" if self.threshold is None else f"estimated at τ = {self.threshold:g}"
        return f"{self.letter}, {source}"

    @property
    def key(self) -> tuple[object, ...]:
        return "variance", self.trace.path, cache.stamp(self.trace), self.threshold


def draw_variance(selection: Selection) -> None:
    """The panel. It reads all rows, so it waits until the page is drawn and left alone."""
    trace, other = selection.trace, selection.other
    assert trace is not None
    wanted = [_Split("A", trace, selection.threshold, figures.A)]
    if other is not None:
        wanted.append(_Split("B", other, None, figures.B))
    reasons = {split.name: _why_not(split, selection) for split in wanted}
    possible = [split for split in wanted if reasons[split.name] is None]
    if possible:
        ready = all(waiting.RESULTS.is_known(split.key) for split in possible)
        waiting.when_quiet("Splitting the variance of the exit layers", ready, partial(_draw, selection, possible))
    for sentence in filter(None, reasons.values()):
        st.info(sentence)


def _draw(selection: Selection, possible: list[_Split]) -> None:
    with guarded():
        groups, found = [], {}
        for one in possible:
            text = f"{one.name}: splitting the variance of the exit layers …"
            work = partial(split_variance, one.trace, one.threshold)
            answer = waiting.result(f"variance of {one.letter}", one.key, work, text)
            if answer is None:
                return
            found[one.name] = answer
            e = [getattr(answer, field) for field in SHARES]
            groups.append(Bars(one.name, [x.value for x in e], [x.low for x in e], [x.high for x in e], one.color))
        repeated = repeated_by_schedule(exits_on_screen(selection)[0])
        counted = ", ".join(f"{name}: {s.samples:,} samples × {s.steps} steps" for name, s in found.items())
        subtitle = f"{counted} · one fixed exit layer per timestep agrees with {repeated:.0%} of A's decisions"
        title = findings.about_variance(next(iter(found.values())))
        heading(title, subtitle, HELP, partial(_table, found), "variance")
        chart(variance_shares(list(SHARES.values()), groups), "plot variance", title, caption=subtitle)


def _why_not(one: _Split, selection: Selection) -> str | None:
    """Why there is nothing to split, or None."""
    name, trace = one.name, one.trace
    answer = selection.answer if one.threshold is not None else None
    exits = trace.summary.exits if answer is None else answer.exits
    if np.count_nonzero(exits.sum(axis=0)) == 1:
        return f"**{name}**: every sample exits at the same layer at every step, so the exit layer does not vary."
    if trace.parts:
        return None
    return (
        f"**{name}**: the timestep explains {timestep_share(exits):.0%} of the exit layer's variance. The sample's "
        "share is computed from the rows, which this trace lacks: sample it again to get them."
    )


def _table(found: dict[str, VarianceSplit]) -> pd.DataFrame:
    rows = []
    for name, answer in found.items():
        for field in ("total", "timestep", "sample", "rest", "stays_all", "stays_next"):
            e = getattr(answer, field)
            rows.append((name, field, e.value, e.low, e.high, answer.samples, answer.steps))
    return pd.DataFrame(rows, columns=["trace", "share", "value", "low", "high", "samples", "steps"])


VARIANCE = Panel("variance", draw_variance)
