"""Overview: does leaving a diffusion network early pay, where, and why?"""

from __future__ import annotations

from app.state.selection import current
from app.views.overview.about import GLOSSARY, START, WHAT_PANEL
from app.views.overview.where import WHERE
from app.views.overview.why import WHY
from app.views.overview.worth import BUDGETS, WORTH
from app.widgets.panels import Panel, Row, show

PANELS: list[Row | Panel] = [
    [(WORTH, 5), (WHERE, 4), (WHY, 4)],
    BUDGETS,
    [(WHAT_PANEL, 1), (START, 1)],
    GLOSSARY,
]

show(PANELS, current(), key="panels overview", gap="medium")
