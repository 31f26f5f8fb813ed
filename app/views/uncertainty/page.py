"""Uncertainty: what the UEMs say, per layer and timestep, whether it is true, and where in the image."""

from __future__ import annotations

import streamlit as st

from app.state.selection import Selection, current
from app.views.uncertainty import calibration, maps
from app.views.uncertainty.models import choose_more, curves_panel, heatmap_panel
from app.widgets.empty import no_trace
from app.widgets.panels import guarded, needs_uncertainty, show


def traces(selection: Selection) -> None:
    """Heatmaps side by side, and under them (or beside a single one) the curves at the selected timestep."""
    models = choose_more(selection)
    if (missing := needs_uncertainty(selection)) is not None:
        st.info(missing)
    if not models:
        return
    panels = [(heatmap_panel(model, models), 1.0) for model in models]
    curves = (curves_panel(models), 1.0)
    if len(panels) == 1:
        show([[*panels, (curves[0], 0.8)]], selection)
        return
    pairs = [panels[k : k + 2] for k in range(0, len(panels), 2)]
    if len(pairs[-1]) == 1:
        show([*pairs[:-1], [*pairs[-1], curves]], selection)
    else:
        show([*pairs, [curves]], selection)


def draw() -> None:
    """The page."""
    selected = current()
    if not selected.run.traces:
        no_trace(selected.run)
        return
    with guarded():
        traces(selected)
    with guarded():
        calibration.draw(selected)
    if selected.trace is not None and selected.trace.meta.has_uncertainty:
        with guarded():
            maps.draw(selected)


draw()
