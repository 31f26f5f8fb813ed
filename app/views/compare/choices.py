"""What a reader of *Compare* chose: runs, measures of quality and cost, and the traces whose images are shown.

All of it stands in the URL beside the shared selection.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.state import link
from app.state.selection import Selection
from app.state.traces import full_of, key_of
from app.views.compare.points import Axis
from app.widgets import inputs
from app.widgets.plot import Point as Click
from deediff.runs import Run
from deediff.traces.reader import Trace

RUNS, QUALITY, PICKED = "runs", "quality", "picked"  # keys, in the URL as in the session
MOST = 6  # runs of one family that are chosen by themselves: as many as lines have colours
LED = "runs led by"  # session state: the selected run that the list of runs last followed


def choose_runs(runs: Sequence[Run], selected: Selection) -> list[Run]:
    """Whose traces are compared: until others are chosen, the selected one's and those trained from it."""
    names, mine = [run.name for run in runs], selected.run.name
    wanted = st.session_state.get(RUNS, _family(runs, mine))
    if (asked := link.asked_for(RUNS)) is not None:
        wanted = asked
        link.complain_of_missing("the run", asked, names)
    elif wanted == _family(runs, st.session_state.get(LED, mine)):
        wanted = _family(runs, mine)
    st.session_state[LED] = mine
    shown = link.default(RUNS, [name for name in wanted if name in names])
    st.multiselect(
        "Runs", names, shown, key=RUNS, persist_state="session", width=420,
        help="Their traces are compared with each other.",
    )  # fmt: skip
    chosen = st.session_state[RUNS]
    link.write({RUNS: link.joined(chosen)})
    return [run for run in runs if run.name in chosen]


def _family(runs: Sequence[Run], name: str) -> list[str]:
    """A run, and those with traces that were trained from its weights, where those are few enough for one picture."""

    def from_it(run: Run) -> bool:
        config = run.info.get("config")
        return isinstance(config, dict) and str(config.get("init")).startswith(f"{name}/")

    family = [name, *(run.name for run in runs if run.name != name and run.traces and from_it(run))]
    return family if len(family) <= MOST else [name]


def choose_axis(known: Sequence[Axis]) -> Axis | None:
    """The measure of quality; the one that most traces have, unless another was chosen."""
    if not known:
        return None
    by_key = {axis.key: axis for axis in known}
    chosen = inputs.selectbox(
        "Quality", list(by_key), QUALITY, width=400, format_func=lambda key: by_key[key].label,
        help="One entry per metric, extractor, reference and number of images: only equal ones share an axis.",
    )  # fmt: skip
    return by_key[chosen]


def follow_picks(runs: Sequence[Run], traces: Sequence[Trace], selected: Selection) -> None:
    """Take over what the link picks, or what the reader already looks at, and put it into the URL."""
    if (asked := link.asked_for(PICKED)) is not None:
        there = [f"{run.name}/{folder.name}" for run in runs for folder in run.traces]
        link.complain_of_missing("the trace", asked, there)
        st.session_state[PICKED] = [key for key in asked if key in there]
    elif PICKED not in st.session_state:
        st.session_state[PICKED] = _picked_by_default(selected, traces)
    link.write({PICKED: link.joined(st.session_state[PICKED])})


def toggle(point: Click) -> None:
    """A click on a mark picks its trace, or takes it away again."""
    key = point["customdata"][0]
    picked: list[str] = st.session_state[PICKED]
    st.session_state[PICKED] = [k for k in picked if k != key] if key in picked else [*picked, key]


def _picked_by_default(selected: Selection, traces: Sequence[Trace]) -> list[str]:
    """A and B after the full network with their noise; beside the full network alone, its boldest threshold."""
    a = selected.trace
    if a is None:
        return [key_of(trace) for trace in traces[:1]]
    full = a if a.meta.is_full else full_of(a)
    chosen = [t for t in (full, a, selected.other) if t is not None]
    if all(t.meta.is_full for t in chosen):
        chosen += sorted(selected.siblings, key=_boldness)[:1]
    return list(dict.fromkeys(key_of(trace) for trace in chosen))


def _boldness(trace: Trace) -> tuple[bool, float]:
    """Thresholds first, then by the share of layers that is run."""
    return trace.meta.policy.name != "threshold", trace.cost.layer_ratio(trace.summary.exits)
