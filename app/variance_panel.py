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
from charts import chart
from deediff.analysis.trends import timestep_share
from deediff.analysis.variance import Moments, VarianceSplit
from deediff.traces.reader import Trace
from exit_numbers import repeated_by_schedule
from exit_panels import exits_on_screen
from figures import Bars
from panels import guarded, heading
from selection import Selection

SHARES = {"timestep": "timestep", "sample": "sample", "rest": "rest", "stays_next": "stays for the next step"}
HELP = (
    "The exit layer's variance over samples and steps, split as in a two-way layout: *timestep* is what a fixed "
    "schedule could follow, *sample* is the same at all of a sample's timesteps, *rest* is interaction and noise. "
    "*Stays* is how much of what the timestep leaves open is still there one step later: noise would not stay. "
    "Intervals: 95 %, over resampled samples."
)


def split(trace: Trace, threshold: float | None, draws: int = 1000) -> VarianceSplit:
    """Of the exit layers at a threshold, counted from the recorded u; without one, of those measured."""
    moments = Moments(len(trace.timesteps), 1, draws)
    for layers in _exit_layers(trace, threshold):
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
    """The panel; it reads rows, so it may take a while and never holds up the others."""
    if selection.trace is not None:
        background.poll("the variance", partial(_guarded, selection))


def _guarded(selection: Selection) -> bool:
    done = True
    with guarded():
        done = _draw(selection)
    return done


def _draw(selection: Selection) -> bool:
    """False while something is still being computed."""
    trace = selection.trace
    assert trace is not None
    wanted = [("A", trace, selection.threshold, figures.A)]
    if selection.other is not None:
        wanted.append(("B", selection.other, None, figures.B))
    groups, found, missing = [], {}, []
    for letter, t, tau, color in wanted:
        name = f"{letter}, estimated at τ = {tau:g}" if tau is not None else f"{letter}, measured"
        exits = t.what_if(tau).exits if tau is not None else t.summary.exits
        if exits.max(axis=1).sum() == exits.sum() and len(set(exits.argmax(axis=1))) == 1:
            missing.append(f"**{name}**: every sample leaves at the same layer at every step, so nothing varies.")
        elif not t.parts:
            missing.append(
                f"**{name}**: the timestep explains {timestep_share(exits):.0%} of the exit layer's variance. How much "
                "the sample explains needs the rows, which did not come with this trace: sample it again to get them."
            )
        else:
            with st.spinner("Splitting the variance of the exit layers …"):
                key = ("variance", t.path, data.stamp(t), tau)
                answer = background.worker().ask(key, partial(split, t, tau))
            if answer is None:
                return _wait(name)
            found[name] = answer
            e = [getattr(answer, field) for field in SHARES]
            groups.append(Bars(name, [x.value for x in e], [x.low for x in e], [x.high for x in e], color))
    if groups:
        first = next(iter(found.values()))
        exits, _ = exits_on_screen(selection)
        title = findings.about_variance(first)
        subtitle = f"{', '.join(f'{name}: {s.samples:,} samples × {s.steps} steps' for name, s in found.items())} · "
        subtitle += f"one fixed exit layer per timestep would repeat {repeated_by_schedule(exits):.0%} of A's decisions"
        heading(title, subtitle, HELP, partial(_table, found), "variance")
        chart(figures.shares(list(SHARES.values()), groups), "plot variance", title)
    for sentence in missing:
        st.info(sentence)
    return True


def _wait(name: str) -> bool:
    st.info(f"**{name}**: splitting the variance reads all rows of the trace; the page stays usable meanwhile …",
            icon=":material/hourglass_top:")  # fmt: skip
    return False


def _table(found: dict[str, VarianceSplit]) -> pd.DataFrame:
    rows = []
    for name, answer in found.items():
        for field in ("total", "timestep", "sample", "rest", "stays_all", "stays_next"):
            e = getattr(answer, field)
            rows.append((name, field, e.value, e.low, e.high, answer.samples, answer.steps))
    return pd.DataFrame(rows, columns=["trace", "share", "value", "low", "high", "samples", "steps"])
