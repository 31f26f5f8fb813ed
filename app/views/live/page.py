"""Sample live: the same seeds with and without early exit, sampled in the background."""

from __future__ import annotations

from app.state.selection import Selection, current
from app.views.live.results import RESULTS
from app.views.live.sampling import CONTROLS
from app.widgets.empty import no_checkpoint
from app.widgets.panels import show


def live_page(selected: Selection) -> None:
    """The page."""
    if selected.checkpoint is None:
        no_checkpoint(selected.run, "nothing can be sampled from it")
        return
    show([[(CONTROLS, 1), (RESULTS, 3.4)]], selected, key="live", gap="medium")


live_page(current())
