"""Exit trends: where samples leave, at the slider's threshold and in what was really sampled."""

from __future__ import annotations

import streamlit as st

from app.state.selection import Selection, current, measured_threshold
from app.views.trends import budget, variance
from app.views.trends.exits import ESTIMATE, GAP, HEATMAP, INSIDE, MOMENT, SPREAD, closest_measured
from app.views.trends.lines import LINES, choose_thresholds
from app.widgets.empty import no_trace
from app.widgets.formatting import percent, signed
from app.widgets.panels import guarded, needs_trace, show


def estimate_line(selection: Selection) -> None:
    """What the slider's threshold would cost, the nearest measurement, and their difference."""
    trace = selection.trace
    if trace is None:
        return
    if selection.threshold is None:
        st.info(f"The what-if slider is disabled, because {trace.why_no_what_if}. The exits below are those measured.")
        return
    answer = selection.answer
    assert answer is not None
    how = "Estimated (open loop): recorded uncertainties against this τ, as if earlier exits changed nothing."
    with st.container(horizontal=True, key="estimate", gap="medium"):
        st.caption(f"**{ESTIMATE.split()[0]}** (open loop)  \nat τ = {selection.threshold:.3f}", width="content")
        st.metric("Layer ratio", f"{answer.layer_ratio:.3f}", help=how, width="content")
        change = percent(answer.gflops, trace.cost.full)
        st.metric("GFLOPs per step", f"{answer.gflops:.4g} ({change})",
                  help=f"{how} All UEMs asked on the way are counted; the full network costs {trace.cost.full:.4g}.",
                  width="content")  # fmt: skip
        closest = closest_measured(selection)
        if closest is not None:
            tau, ratio = measured_threshold(closest), closest.cost.layer_ratio(closest.summary.exits)
            st.metric("Closest measured layer ratio", f"{ratio:.3f} (τ = {tau:g})",
                      help=f"Layer ratio of {closest.path.name}, which was really sampled with exits (closed loop).",
                      width="content")  # fmt: skip
            if tau is not None and abs(tau - selection.threshold) < 1e-6:
                st.metric("Estimate − measured", signed(answer.layer_ratio - ratio, 3), width="content",
                          help="How far the open-loop estimate of the layer ratio is off at this threshold: an exit "
                          "changes the image that the next decisions are taken on.")  # fmt: skip
        with guarded():
            budget.show(selection)


def draw() -> None:
    """The page."""
    selected = current()
    if not selected.run.traces:
        no_trace(selected.run)
        return
    with guarded():
        estimate_line(selected)
    show([[(HEATMAP, 3), (MOMENT, 2)]], selected)
    if needs_trace(selected) is not None:
        return
    with guarded():
        choose_thresholds(selected)
    show([[(LINES, 1), (SPREAD, 1)], [(INSIDE, 1), (GAP, 1)]], selected, key="panels below")
    with guarded():
        variance.show(selected)


draw()
