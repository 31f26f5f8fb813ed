"""The choices of *Compare*: runs, quality, and the traces whose images are shown; all in the URL."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.state import link
from app.state.choice import resolve_names
from app.state.selection import Selection
from app.state.traces import full_of, key_of
from app.views.compare.points import Axis
from app.widgets import inputs
from app.widgets.plot import Point as Click
from deediff.runs import Run
from deediff.traces.reader import Trace

RUNS, QUALITY, PICKED = "runs", "quality", "picked"  # keys, in the URL as in the session
MOST = 6  # runs of one family that are chosen by default: as many as there are line colours
LED = "runs led by"  # session state: the selected run that the list of runs last followed


def choose_runs(runs: Sequence[Run], selected: Selection) -> list[Run]:
    """The runs whose traces are compared: until others are chosen, the selected one's and those trained from it."""
    mine = selected.run.name
    family = _family(runs, mine)
    before = _family(runs, st.session_state.get(LED, mine))
    led = family if st.session_state.get(RUNS, family) == before else None
    st.session_state[LED] = mine
    chosen = inputs.names(
        "Runs",
        [run.name for run in runs],
        RUNS,
        family,
        what="run",
        led=led,
        width=250,
        help="Their traces are compared with each other.",
    )
    link.write({RUNS: link.joined(chosen)})
    return [run for run in runs if run.name in chosen]


def _family(runs: Sequence[Run], name: str) -> list[str]:
    """A run, and those with traces that were trained from its weights, where those are few enough for one figure."""

    def from_it(run: Run) -> bool:
        config = run.info.get("config")
        return isinstance(config, dict) and str(config.get("init")).startswith(f"{name}/")

    family = [name, *(run.name for run in runs if run.name != name and run.traces and from_it(run))]
    return family if len(family) <= MOST else [name]


def choose_axis(known: Sequence[Axis]) -> Axis | None:
    """The measure of quality; by default the one that most traces have."""
    if not known:
        return None
    by_key = {axis.key: axis for axis in known}
    chosen = inputs.selectbox(
        "Quality",
        list(by_key),
        QUALITY,
        width=300,
        format_func=lambda key: by_key[key].label,
        help="One entry per metric, extractor, reference and number of images: only equal ones share an axis.",
    )
    return by_key[chosen]


def pick_traces(runs: Sequence[Run], traces: Sequence[Trace], selected: Selection) -> None:
    """The picked traces of the link or the session, else those of the selection; written into the URL."""
    known = [f"{run.name}/{folder.name}" for run in runs for folder in run.traces]
    if PICKED not in st.session_state:
        st.session_state[PICKED] = _picked_by_default(selected, traces)
    st.session_state[PICKED] = resolve_names(PICKED, [], known, "trace", keep=True)
    link.write({PICKED: link.joined(st.session_state[PICKED])})


def toggle_pick(point: Click) -> None:
    """A click on a mark picks its trace, or unpicks it."""
    key = point["customdata"][0]
    picked: list[str] = st.session_state[PICKED]
    st.session_state[PICKED] = [k for k in picked if k != key] if key in picked else [*picked, key]


def _picked_by_default(selected: Selection, traces: Sequence[Trace]) -> list[str]:
    """The full network's trace of the same noise, A and B; without exits among them, also the threshold of
    the smallest layer ratio."""
    a = selected.trace
    if a is None:
        return [key_of(trace) for trace in traces[:1]]
    full = a if a.meta.is_full else full_of(a)
    chosen = [t for t in (full, a, selected.other) if t is not None]
    if all(t.meta.is_full for t in chosen):
        chosen += sorted(selected.siblings, key=_cheapest_threshold)[:1]
    return list(dict.fromkeys(key_of(trace) for trace in chosen))


def _cheapest_threshold(trace: Trace) -> tuple[bool, float]:
    """Sort key: thresholds first, then by layer ratio."""
    return trace.meta.policy.name != "threshold", trace.cost.layer_ratio(trace.summary.exits)
