"""The one shared selection: run, traces A and B, checkpoint, threshold, timestep, layer, sample.

All of it lives in the URL, so that a link reopens what a colleague saw; where a link asks for what is not
there, the reader is told so in one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from app.state import cache, link
from deediff.errors import UserError
from deediff.runs import Run, list_runs
from deediff.traces.meta import TraceMeta
from deediff.traces.pairing import same_noise
from deediff.traces.reader import Trace, WhatIf

HIGHEST = 0.5  # a threshold above it never makes sense: u is tanh|error| averaged over pixels
STEP = 0.005  # between two stops of the slider, as in THRESHOLDS
CLICKED = "clicked"  # session state: what was chosen by a click and is taken over by the next run of the script


@dataclass(frozen=True)
class Selection:
    """What every panel draws from."""

    run: Run
    trace: Trace | None = None  # A
    other: Trace | None = None  # B
    checkpoint: Path | None = None
    threshold: float | None = None  # None where trace A answers no what-if
    answer: WhatIf | None = None  # what A says to the threshold
    siblings: list[Trace] = field(default_factory=list)  # further traces of the run with A's solver and steps
    step: int = 0  # 0, 1, … into trace A's timesteps
    timestep: int = 0  # the diffusion t of that step
    layer: int | None = None  # 0 … N, where one was chosen
    sample: int | None = None  # number of a sample, where one was chosen

    def as_link(self) -> dict[str, object]:
        """What stands in the URL."""
        return {
            "run": self.run.name,
            "trace": self.trace and self.trace.path.name,
            "b": self.other and self.other.path.name,
            "tau": None if self.threshold is None else f"{self.threshold:g}",
            "t": self.trace and self.timestep,
            "layer": self.layer,
            "sample": self.sample,
            "checkpoint": self.checkpoint and self.checkpoint.stem,
        }

    def step_of(self, trace: Trace) -> int:
        """The step of another trace whose timestep is nearest to the chosen one."""
        return int(np.abs(np.asarray(trace.timesteps) - self.timestep).argmin())


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
    """Choose any of these; what is not given stays.

    For callbacks of clicks: every panel and the URL follow in the run of the script that comes next. Inside a
    fragment, or outside a callback, call `st.rerun()` afterwards.
    """
    chosen = {
        "t": timestep, "layer": layer, "sample": sample, "tau": threshold, "run": run, "trace": trace, "b": other
    }  # fmt: skip
    pending = st.session_state.setdefault(CLICKED, {})
    pending.update({key: value for key, value in chosen.items() if value is not None})


def become(trace: Trace, which: str) -> None:
    """Make this trace A or B of every page; for callbacks."""
    name = trace.path.name
    select(run=trace.path.parents[1].name, trace=name if which == "A" else None, other=name if which == "B" else None)


def current() -> Selection:
    """The selection that the frame made in this run of the script."""
    return st.session_state["selection"]


def choose() -> tuple[Selection | None, list[str]]:
    """Draw the selection's widgets; returns what is selected and, in sentences, what cannot be read.

    None when there is no run to select.
    """
    runs, problems = list_runs(cache.runs_root())
    if not runs:
        return None, problems
    named = {run.name: run for run in runs}
    run = named[_pick("run", "Run", list(named), f"in {cache.runs_root()}")]
    st.caption(_describe_run(run))

    metas, unreadable = cache.metas(run)
    problems += unreadable
    trace = other = None
    siblings: list[Trace] = []
    if metas:
        name = _pick("trace", "Trace A", list(metas), f"in run {run.name}")
        trace = _open(run, name, problems)
        st.caption(_describe_trace(metas[name]))
        rest = [n for n in metas if n != name]
        if rest:
            second = _pick("b", "Trace B", ["none", *rest], f"in run {run.name}, or is trace A itself")
            other = _open(run, second, problems) if second != "none" else None
        alike = [n for n in rest if same_noise(metas[n], metas[name])]
        siblings = [t for n in alike if (t := _open(run, n, [])) is not None]
    threshold = _pick_threshold(trace, siblings) if trace is not None else None
    point = _pick_point(trace) if trace is not None else {}
    checkpoint = None
    if run.checkpoints:
        steps = {path.stem: path for path in reversed(run.checkpoints)}
        help_text = "Training step of the weights that *Sample live* uses; the newest first."
        checkpoint = steps[_pick("checkpoint", "Checkpoint", list(steps), f"in run {run.name}", help_text)]
    answer = trace.what_if(threshold) if trace is not None and threshold is not None else None
    st.session_state.pop(CLICKED, None)
    chosen = Selection(run, trace, other, checkpoint, threshold, answer, siblings, **point)
    link.write(chosen.as_link())
    return chosen, problems


def _pick(key: str, label: str, options: list[str], where: str, info: str | None = None) -> str:
    """A select box that follows the link; an unknown name in the link is reported."""
    asked = link.asked(key)
    if asked is not None and asked not in options:
        link.complain(f"The link asks for {key} “{asked}”, which is not {where}: showing “{options[0]}” instead.")
    wanted = _clicked(key) or asked or st.session_state.get(key)
    shown = link.default(key, wanted if wanted in options else options[0])
    return st.selectbox(label, options, options.index(shown) if shown is not None else 0, key=key, help=info)


def _clicked(key: str) -> Any:
    """What was clicked since the last run of the script, or None."""
    return st.session_state.get(CLICKED, {}).get(key)


def _open(run: Run, name: str, problems: list[str]) -> Trace | None:
    try:
        trace = cache.open_trace(run.path / "traces" / name)
        trace.summary  # noqa: B018 — read now, so that one sentence replaces every panel's failure
    except UserError as error:
        problems.append(str(error))
        return None
    problems += [f"{name}: {problem}" for problem in trace.problems]
    return trace


def stops(trace: Trace) -> tuple[float, float]:
    """Lowest and highest useful stop of the slider: what the trace answers, up to where nothing changes any more."""
    assert trace.what_if_limit is not None
    lowest = max(0.0, float(np.ceil(trace.what_if_limit[0] / STEP - 1e-4) * STEP))
    last = trace.highest_threshold
    highest = HIGHEST if last is None else min(HIGHEST, last)
    return round(lowest, 3), round(max(highest, lowest + STEP), 3)


def _pick_threshold(trace: Trace, siblings: list[Trace]) -> float | None:
    """The what-if slider; disabled, with the reason, where the trace answers nothing."""
    if trace.what_if_limit is None:
        reason = f"No what-if: {trace.why_no_what_if}."
        st.slider("What-if threshold τ", 0.0, HIGHEST, 0.1, STEP, format="%.3f", disabled=True, help=reason)
        st.caption(f":material/block: {reason}")
        return None
    lowest, highest = stops(trace)
    asked, tau = link.asked("tau"), st.session_state.get("tau")
    if (clicked := _clicked("tau")) is not None:
        tau = clicked
    elif asked is not None and _is_between(asked, lowest, highest):
        tau = float(asked)
    elif asked is not None:
        link.complain(f"The link asks for τ = {asked}, but this trace answers {lowest:g} … {highest:g} only.")
    if tau is None:
        tau = _default_threshold([trace, *siblings])
    shown = link.default("tau", min(max(tau, lowest), highest))  # another trace may answer another range
    tau = st.slider(
        "What-if threshold τ", lowest, highest, shown, STEP, format="%.3f", key="tau",
        help="A sample leaves at the first layer whose uncertainty u is ≤ τ. Moving the slider samples nothing: "
        "the exits are recounted from the uncertainties that the trace recorded.",
    )  # fmt: skip
    if lowest > 0:
        st.caption(f"from {lowest:g}: {trace.what_if_limit[1]}")
    return round(float(tau), 3)


def _pick_point(trace: Trace) -> dict[str, Any]:
    """Timestep, layer and sample, as fields of a selection."""
    times = trace.timesteps
    asked = link.asked("t")
    wanted = st.session_state.get("t", times[len(times) // 2])
    if (clicked := _clicked("t")) is not None:
        wanted = clicked
    elif asked is not None and asked in map(str, times):
        wanted = int(asked)
    elif asked is not None:
        link.complain(
            f"The link asks for t = {asked}, but the timesteps of this trace are {len(times)} from {times[0]} to "
            f"{times[-1]}: showing another one."
        )
    timestep = min(times, key=lambda t: abs(t - wanted))  # of another trace, perhaps
    shown = link.default("t", timestep)
    if len(times) > 1:
        info = "Marked in every picture over time. Clicking a cell or a point chooses it, too."
        timestep = st.select_slider("Timestep t", times, shown, key="t", help=info)
    left, right = st.columns(2)
    with left:
        layer = _pick_number("layer", "Layer", trace.num_blocks, "this trace has layers")
    with right:
        sample = _pick_number("sample", "Sample", trace.meta.num_samples - 1, "its samples are")
    return {"step": times.index(timestep), "timestep": timestep, "layer": layer, "sample": sample}


def _pick_number(key: str, label: str, last: int, what: str) -> int | None:
    """A number from 0 to `last`, or none."""
    asked, state = link.asked(key), f"chosen {key}"
    wanted = st.session_state.get(state)
    if (clicked := _clicked(key)) is not None:
        wanted = clicked
    elif asked is not None and asked.isdecimal() and int(asked) <= last:
        wanted = int(asked)
    elif asked is not None:
        link.complain(f"The link asks for {key} “{asked}”, but {what} 0 … {last}: none is chosen.")
    shown = link.default(state, None if wanted is None else min(wanted, last))  # another trace may have fewer
    return st.number_input(label, 0, last, shown, key=state, placeholder="any")


def _default_threshold(traces: list[Trace]) -> float:
    """The middle one of the measured thresholds, so that the estimate opens beside its truth."""
    measured = sorted(tau for trace in traces if (tau := measured_threshold(trace)) is not None)
    return round(measured[len(measured) // 2] / STEP) * STEP if measured else 0.1


def measured_threshold(trace: Trace) -> float | None:
    """τ of a trace that was sampled with a plain threshold policy."""
    return trace.threshold


def _is_between(text: str, lowest: float, highest: float) -> bool:
    try:
        return lowest - 1e-9 <= float(text) <= highest + 1e-9
    except ValueError:
        return False


def _describe_run(run: Run) -> str:
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


def _describe_trace(meta: TraceMeta) -> str:
    solver = (meta.solver or "solver unknown").upper()
    return f"{meta.policy} · {solver}, {len(meta.timesteps)} steps · {meta.num_samples:,} samples"
