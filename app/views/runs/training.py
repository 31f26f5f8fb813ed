"""Training curves of the ticked runs, updated while they train."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from app.state import cache
from app.state.selection import Selection
from app.views.runs import inventory
from app.views.runs.figures import training_curves
from app.views.runs.running import draw_grids
from app.widgets.panels import Panel, heading
from app.widgets.plot import chart
from app.widgets.waiting import polled
from deediff.runs import Run, is_training, list_runs

POLL = 2.0  # seconds between two reads of a running training
HELP = (
    "Each figure is one term of the loss (Eq. 4, 7, 8 and 10; their sum is Eq. 9) against the training step, on a "
    "logarithmic scale. At the dotted line UEMs and output heads are added to the backbone."
)


def training_panel(chosen: Sequence[Run]) -> Panel:
    """In a fragment of its own while a run trains."""
    return Panel("training", partial(_draw_polled, chosen))


def _draw_polled(chosen: Sequence[Run], selected: Selection) -> None:
    polled(partial(_draw_training, chosen), lambda: any(map(is_training, chosen)), POLL)


def _draw_training(chosen: Sequence[Run]) -> None:
    """Progress and curves, from the files as they are now."""
    runs = {run.path: run for run in list_runs(cache.runs_root())[0]}
    now = [runs.get(run.path, run) for run in chosen]
    problems: list[str] = []
    curves = inventory.read_curves(now, problems)
    for problem in problems:
        st.warning(problem)
    if not curves:
        st.caption("No training curves: imported runs have none.")
        return
    shown = {name: inventory.thinned(curve) for name, curve in curves.items()}
    live = " · updates during training" if any(map(is_training, now)) else ""
    table = pd.concat([curve.assign(run=name) for name, curve in curves.items()])
    heading("Training losses by term", f"{', '.join(curves)}{live}", HELP, lambda: table, "training curves")
    chart(
        training_curves(shown, inventory.LOSSES),
        "plot training curves",
        "Training curves",
        about=f"training of {', '.join(curves)}",
    )
    for run in now:
        draw_grids(run)
