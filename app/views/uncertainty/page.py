"""Uncertainty: u per layer and timestep, its calibration against the actual error, and its maps over the image."""

from __future__ import annotations

import streamlit as st

from app.state.selection import Selection, current
from app.views.uncertainty.calibration import CALIBRATION
from app.views.uncertainty.maps import MAPS
from app.views.uncertainty.models import Model, choose_more, curves_panel, heatmap_panel
from app.widgets.empty import no_trace
from app.widgets.panels import Panel, Row, guarded, needs_uncertainty, show


def trace_rows(models: list[Model]) -> list[Row | Panel]:
    """Heatmaps side by side, and below them (or beside a single one) the curves at the selected timestep."""
    if not models:
        return []
    heatmaps = [(heatmap_panel(model, models), 1.0) for model in models]
    curves = (curves_panel(models), 1.0)
    if len(heatmaps) == 1:
        return [[*heatmaps, (curves[0], 0.8)]]
    pairs: list[Row | Panel] = [heatmaps[k : k + 2] for k in range(0, len(heatmaps), 2)]
    if len(heatmaps) % 2:
        return [*pairs[:-1], [heatmaps[-1], curves]]
    return [*pairs, [curves]]


def uncertainty_page(selected: Selection) -> None:
    """The page."""
    if not selected.run.traces:
        no_trace(selected.run)
        return
    models: list[Model] = []
    with guarded():
        models = choose_more(selected)
    if (missing := needs_uncertainty(selected)) is not None:
        st.info(missing)
    panels = trace_rows(models)
    panels.append(CALIBRATION)
    if selected.trace is not None and selected.trace.meta.has_uncertainty:
        panels.append(MAPS)
    show(panels, selected)


uncertainty_page(current())
