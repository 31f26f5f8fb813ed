"""The sidebar: makes the selection that every page shares."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from app.shell.cohort import choose_cohort_of
from app.shell.news import show_news, watch_folder
from app.state import cache, link
from app.state.choice import end_clicks
from app.state.recent import dated, first_run, remember_run
from app.state.selection import HIGHEST, STEP, Selection, stops
from app.widgets import inputs
from app.widgets.empty import no_full_record
from app.widgets.glossary import meaning
from deediff.errors import UserError
from deediff.runs import Run, list_runs, newest_first
from deediff.traces.meta import TraceMeta
from deediff.traces.pairing import same_noise
from deediff.traces.reader import Trace

NO_TRACE = "none"  # option of trace B


def choose_selection() -> tuple[Selection | None, list[str]]:
    """Draw the widgets; returns the selection, and a sentence for each file that cannot be read.

    None when there is no run.
    """
    watch_folder()
    note = st.container()
    runs, problems = list_runs(cache.runs_root())
    if not runs:
        return None, problems
    with link.one_step():
        by_path = {run.path: run for run in runs}
        chosen = _choose({path.name: by_path[path] for path in newest_first(by_path)}, problems)
        link.write(chosen.as_link())
    end_clicks()
    with note:
        show_news(chosen)
    return chosen, problems


def _choose(runs: dict[str, Run], problems: list[str]) -> Selection:
    impossible = f"which is not in {cache.runs_root()}"
    first = first_run(list(runs.values()))
    shown = dated(run.path for run in runs.values())
    run = runs[
        inputs.selectbox(
            "Run", list(runs), "run", first, impossible, help=meaning("run"), format_func=partial(_shown, shown)
        )
    ]
    if run.name != first:
        remember_run(run.name)
    st.caption(_about_run(run))
    metas, unreadable = cache.metas(run)
    problems += unreadable
    trace = other = None
    siblings: list[Trace] = []
    if metas:
        impossible = f"which is not in run {run.name}"
        names = [folder.name for folder in newest_first(run.traces) if folder.name in metas]
        labels: dict[str, Any] = {"format_func": partial(_shown, dated(run.traces))}
        first = next(iter(metas))
        name = inputs.selectbox("Trace A", names, "trace", first, impossible, help=meaning("trace"), **labels)
        trace = _open(run, name, problems)
        st.caption(_about_trace(metas[name]))
        rest = [n for n in names if n != name]
        if rest:
            impossible = f"which is not in run {run.name}, or is trace A itself"
            options, help_text = [NO_TRACE, *rest], meaning("trace A, trace B")
            second = inputs.selectbox("Trace B", options, "b", impossible=impossible, help=help_text, **labels)
            other = _open(run, second, problems) if second != NO_TRACE else None
        alike = [n for n in rest if same_noise(metas[n], metas[name])]
        siblings = [t for n in alike if (t := _open(run, n, [])) is not None]
    point = {}
    threshold_place = st.container()  # above the samples, of which it counts the exits
    cohort, whole = "", trace
    if trace is not None and trace.parts:
        chosen = choose_cohort_of(run)
        if chosen.numbers:
            trace, other, siblings = chosen.limit(trace, other, siblings, problems)
            cohort = chosen.text if trace is not whole else ""
    with threshold_place:
        threshold = _choose_threshold(run, trace, siblings) if trace is not None else None
    point = _choose_point(whole) if whole is not None else {}
    checkpoint = _choose_checkpoint(run) if run.checkpoints else None
    answer = trace.what_if(threshold) if trace is not None and threshold is not None else None
    return Selection(run, trace, other, checkpoint, threshold, answer, siblings, cohort=cohort, **point)


def _shown(labels: dict[str, str], name: str) -> str:
    return labels.get(name, name)


def _open(run: Run, name: str, problems: list[str]) -> Trace | None:
    try:
        trace = cache.get_trace(run.path / "traces" / name)
        trace.summary  # noqa: B018 — read here, so that one sentence replaces an error in every panel
    except UserError as error:
        problems.append(str(error))
        return None
    problems += [f"{name}: {problem}" for problem in trace.problems[:1]]
    if (more := len(trace.problems) - 1) > 0:
        problems.append(f"{name}: {more} more of its files cannot be read either")
    return trace


def _choose_threshold(run: Run, trace: Trace, siblings: list[Trace]) -> float | None:
    """The what-if slider; disabled, with the reason, where the trace cannot answer."""
    if trace.what_if_limit is None:
        reason = f"No what-if: {trace.why_no_what_if}."
        st.slider("What-if threshold τ", 0.0, HIGHEST, 0.1, STEP, format="%.3f", disabled=True, help=reason)
        st.caption(f":material/block: {reason}")
        no_full_record(run, trace)
        return None
    lowest, highest = stops(trace)
    tau = inputs.slider(
        "What-if threshold τ" if trace.meta.signal_exit is None else "What-if threshold δ",
        (lowest, highest, STEP),
        "tau",
        min(max(_default_threshold([trace, *siblings]), lowest), highest),
        fit=lambda value: min(max(value, lowest), highest),  # another trace has another range
        impossible=f"but this trace answers {lowest:g} … {highest:g} only",
        format="%.3f",
        help="A sample exits at the first layer whose uncertainty u is ≤ τ. Moving the slider samples nothing: the "
        "exits are counted from the uncertainties in the trace. Of drift, first-block and teacache: while its recorded "
        "signal is ≤ δ.",
    )
    if lowest > 0:
        st.caption(f"from {lowest:g}: {trace.what_if_limit[1]}")
    return round(float(tau), 3)


def _choose_point(trace: Trace) -> dict[str, Any]:
    """Timestep, layer and sample, as fields of a selection."""
    times, samples = trace.timesteps, trace.meta.num_samples
    timestep = inputs.select_slider(
        "Timestep t",
        times,
        "t",
        times[len(times) // 2],
        impossible=f"but this trace has {len(times)} timesteps from {times[0]} to {times[-1]}",
        help="Marked in every figure over time. A click on a cell or point selects it, too.",
    )
    left, right = st.columns(2)
    with left:
        impossible = f"but this trace has layers 0 … {trace.num_blocks}"
        layer = inputs.optional_number(
            "Layer", 0, trace.num_blocks, "layer", "chosen layer", impossible, placeholder="any"
        )
    with right:
        impossible = f"but this trace has samples 0 … {samples - 1}"
        sample = inputs.optional_number(
            "Sample", 0, samples - 1, "sample", "chosen sample", impossible, placeholder="any"
        )
    return {"step": times.index(timestep), "timestep": timestep, "layer": layer, "sample": sample}


def _choose_checkpoint(run: Run) -> Path:
    steps = {path.stem: path for path in reversed(run.checkpoints)}
    help_text = "Training step of the weights for *Sample live* and *Method*; the newest first."
    impossible = f"which is not in run {run.name}"
    return steps[inputs.selectbox("Checkpoint", list(steps), "checkpoint", impossible=impossible, help=help_text)]


def _default_threshold(traces: list[Trace]) -> float:
    """The median of the measured thresholds, so that the first estimate has a measurement beside it."""
    measured = sorted(trace.threshold for trace in traces if trace.threshold is not None)
    return round(measured[len(measured) // 2] / STEP) * STEP if measured else 0.1


def _about_run(run: Run) -> str:
    info = run.info
    parameters = info.get("parameters")
    total = sum(parameters.values()) if isinstance(parameters, dict) else None
    words = [
        str(info.get("dataset") or ""),
        run.status,
        f"{total:,} parameters" if total else "",
        f"{info['images_seen']:,} images seen" if isinstance(info.get("images_seen"), int) else "",
    ]
    return " · ".join(word for word in words if word)


def _about_trace(meta: TraceMeta) -> str:
    solver = (meta.solver or "solver unknown").upper()
    return f"{meta.title} · {solver}, {len(meta.timesteps)} steps · {meta.num_samples:,} samples"
