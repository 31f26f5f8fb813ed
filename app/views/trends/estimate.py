"""The cost at the slider's threshold, the nearest measurement, and the threshold of a budget."""

from __future__ import annotations

import streamlit as st

from app.state.selection import Selection, select
from app.state.traces import closest_measured
from app.views.trends.exits import OPEN_LOOP
from app.widgets import inputs
from app.widgets.formatting import percent, signed
from app.widgets.panels import Panel, guarded
from deediff.errors import UserError
from deediff.traces.reader import Trace
from deediff.traces.schema import THRESHOLDS

HOW = "Estimated (open loop): recorded uncertainties against this τ, as if earlier exits had no effect on later steps."


def draw_estimate(selection: Selection) -> None:
    """Figures in one line; where the slider is disabled, the reason."""
    trace, answer = selection.trace, selection.answer
    assert trace is not None
    if selection.threshold is None or answer is None:
        st.info(f"The what-if slider is disabled, because {trace.why_no_what_if}. The exits below are those measured.")
        return
    with st.container(horizontal=True, key="estimate", gap="medium"):
        st.caption(f"**{OPEN_LOOP.split()[0]}** (open loop)  \nat τ = {selection.threshold:.3f}", width="content")
        st.metric("Layer ratio", f"{answer.layer_ratio:.3f}", help=HOW, width="content")
        steps, full = len(trace.timesteps), trace.cost.full
        gflops = f"{answer.gflops * steps:.4g} ({percent(answer.gflops, full)})"
        each = f"{answer.gflops:.4g} per step, where the full network costs {full:.4g}"
        help_text = f"{HOW} Evaluated UEMs are included; over {steps} steps: {each}."
        st.metric("GFLOPs per image", gflops, help=help_text, width="content")
        _draw_closest(selection, answer.layer_ratio)
        with guarded():
            _draw_budget(selection, trace)


def _draw_closest(selection: Selection, estimated: float) -> None:
    """The measured trace at the threshold closest to the slider's."""
    closest = closest_measured(selection)
    if closest is None or selection.threshold is None:
        return
    tau, ratio = closest.threshold, closest.cost.layer_ratio(closest.summary.exits)
    help_text = f"Layer ratio of {closest.path.name}, which was sampled with exits (closed loop)."
    st.metric("Closest measured layer ratio", f"{ratio:.3f} (τ = {tau:g})", help=help_text, width="content")
    if tau is not None and abs(tau - selection.threshold) < 1e-6:
        help_text = "Error of the open-loop estimate at this threshold: an exit changes the input of all later steps."
        st.metric("Estimate − measured", signed(estimated - ratio, 3), help=help_text, width="content")


@st.cache_data(max_entries=200, show_spinner=False)
def _threshold(_trace: Trace, key: tuple[str, float], gflops: float) -> float:
    from deediff.policies.from_trace.budget import budget_threshold

    return round(float(budget_threshold(gflops, _trace).threshold), 3)


def _draw_budget(selection: Selection, trace: Trace) -> None:
    """An input in GFLOPs per image, and a button that moves the slider to the threshold of that cost."""
    steps = len(trace.timesteps)
    budget = inputs.optional_number(
        "GFLOPs budget per image",
        0.0,
        None,
        "budget",
        format="%.4g",
        step=round(steps * trace.cost.full / 50, 4),
        width=170,
        placeholder=f"full: {steps * trace.cost.full:.4g}",
        help="The smallest threshold whose mean cost per image is within this budget, evaluated UEMs "
        "included: estimated (open loop) from trace A.",
    )
    if budget is None:
        return
    try:
        tau = _threshold(trace, (str(trace.path), float(trace.summary.samples)), budget / steps)
    except UserError:
        cheapest = steps * trace.what_if(float(THRESHOLDS[-1])).gflops
        sentence = f"no threshold costs {budget:g} GFLOPs per image or less: the cheapest is {cheapest:.4g}"
        st.caption(f":material/block: {sentence}", width=260)
        return
    st.button(
        f"τ = {tau:.3f}: {steps * trace.what_if(tau).gflops:.4g} GFLOPs",
        icon=":material/arrow_back:",
        on_click=select,
        kwargs={"threshold": tau},
        disabled=selection.threshold is not None and abs(selection.threshold - tau) < 1e-6,
        key="use budget",
        help="Set the what-if threshold to this value.",
    )
    traces = [trace, *selection.siblings]
    known = next((t for t in traces if t.threshold is not None and abs(t.threshold - tau) < 1e-6), None)
    if known is not None:
        st.caption(f"measured: {steps * (known.meta.mean_gflops or 0.0):.4g} GFLOPs", width="content")


ESTIMATE = Panel("estimate", draw_estimate)
