"""“I have 15 GFLOPs per step”: the threshold that costs this much."""

from __future__ import annotations

import streamlit as st

from app.state.selection import Selection, select
from app.widgets import inputs
from deediff.errors import UserError
from deediff.traces.reader import Trace


@st.cache_data(max_entries=200, show_spinner=False)
def _threshold(_trace: Trace, key: tuple[str, float], gflops: float) -> float:
    from deediff.policies.from_trace.budget import budget_threshold

    return round(float(budget_threshold(gflops, _trace).threshold), 3)


def show(selection: Selection) -> None:
    """An input in GFLOPs, and what it comes to."""
    trace = selection.trace
    if trace is None or trace.what_if_limit is None:
        return
    budget = inputs.optional_number(
        "I have GFLOPs per step", "budget", format="%.4g", step=round(trace.cost.full / 50, 4), width=170,
        placeholder=f"full: {trace.cost.full:.4g}",
        help="The smallest threshold that costs at most this much per image and step, all UEMs asked on the way "
        "included: estimated (open loop) from trace A.",
    )  # fmt: skip
    if budget is None:
        return
    try:
        tau = _threshold(trace, (str(trace.path), float(trace.summary.samples)), budget)
    except UserError as error:
        st.caption(f":material/block: {str(error).replace(str(trace.path), trace.path.name)}", width=260)
        return
    cost = trace.what_if(tau).gflops
    alike = [trace, *selection.siblings]
    known = next((t for t in alike if t.threshold is not None and abs(t.threshold - tau) < 1e-6), None)
    st.button(
        f"τ = {tau:.3f}: {cost:.4g} GFLOPs", icon=":material/arrow_back:", on_click=select, kwargs={"threshold": tau},
        disabled=selection.threshold is not None and abs(selection.threshold - tau) < 1e-6, key="use budget",
        help="Move the slider there.",
    )  # fmt: skip
    if known is not None:
        st.caption(f"measured: {known.meta.mean_gflops:.4g} GFLOPs", width="content")
