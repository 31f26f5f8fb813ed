"""Images: the samples of trace A, sorted by a measure, and beside them the same samples of trace B."""

from __future__ import annotations

import streamlit as st

from app.state.selection import Selection, current
from app.views.images.cohorts import cohorts_panel
from app.views.images.grid import OPEN, PROBLEM, choose_samples, grid_panel, splits, wipe_panel
from app.views.images.scatter import scatter_panel
from app.widgets.empty import no_trace
from app.widgets.films.player import choose_mode
from app.widgets.panels import guarded, needs_trace, show
from deediff.traces.pairing import noise_differences


def images_page(selected: Selection) -> None:
    """The page."""
    if not selected.run.traces:
        no_trace(selected.run)
        return
    if (missing := needs_trace(selected)) is not None:
        st.info(missing)
        return
    traces = [(letter, t) for letter, t in (("A", selected.trace), ("B", selected.other)) if t is not None]
    trace, other = traces[0][1], selected.other
    name, numbers, beside = choose_samples(trace, other)
    wiped = len(traces) > 1 and not splits(trace, other) and choose_mode()
    if problem := st.session_state.pop(PROBLEM, None):
        st.info(problem)
    if len(traces) > 1 and (differs := noise_differences(traces[0][1].meta, traces[1][1].meta)):
        names = ", ".join(differs)
        st.caption(f"The two traces differ in {names}: their images differ not only because of their exits.")
    shown = {"A": numbers, "B": beside}
    images = [(grid_panel(letter, each, shown[letter], name), 1) for letter, each in traces]
    cohorts = [cohorts_panel(trace, numbers)] if trace.parts else []
    show([wipe_panel(numbers) if wiped else images, *cohorts, scatter_panel(trace)], selected)


if st.session_state.pop(OPEN, False):
    st.switch_page("views/sample/page.py")  # the selection is in the session
with guarded():
    images_page(current())
