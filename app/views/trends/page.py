"""Exit trends: exit layers over time, estimated at the slider's threshold and measured in the traces."""

from __future__ import annotations

import streamlit as st

from app.state.selection import current
from app.views.trends.estimate import ESTIMATE
from app.views.trends.exits import GAP, HEATMAP, INSIDE, MOMENT, SPREAD
from app.views.trends.lines import LINES, THRESHOLDS
from app.views.trends.signal import SIGNAL
from app.views.trends.variance import VARIANCE
from app.widgets.empty import no_trace
from app.widgets.panels import Panel, Row, needs_trace, show

PANELS: list[Row | Panel] = [
    ESTIMATE,
    [(HEATMAP, 3), (MOMENT, 2)],
    THRESHOLDS,
    [(LINES, 1), (SPREAD, 1)],
    [(INSIDE, 1), (GAP, 1)],
    VARIANCE,
]


def trends_page() -> None:
    """The page."""
    selected = current()
    if not selected.run.traces:
        no_trace(selected.run)
    elif (missing := needs_trace(selected)) is not None:
        st.info(missing)
    else:
        trace = selected.trace
        show([*PANELS, *([SIGNAL] if trace is not None and trace.meta.signal_exit is not None else [])], selected)


trends_page()
