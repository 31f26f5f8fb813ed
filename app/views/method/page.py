"""Method: early exit explained with the selected model and one image of the run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import streamlit as st

from app.state import cache
from app.state.selection import Selection, current
from app.views.method.example import Example, explained, find_image, label_of
from app.views.method.network import network_panel
from app.views.method.noise import noise_panel
from app.views.method.uem import uem_panel
from app.widgets.empty import no_checkpoint, no_trace
from app.widgets.panels import Panel, guarded, show

GLOSSARY_LINK = Panel("glossary link", lambda selected: None, more=("overview", "Glossary of every word"))


def make_example(selected: Selection) -> Example | None:
    """Of the selected sample and timestep; None when no trace of the run holds an image."""
    found = find_image(selected)
    if found is None or selected.checkpoint is None:
        return None
    trace, sample, png = found
    stamp, folder = selected.checkpoint.stat().st_mtime_ns, Path(str(trace.path))
    e = explained(selected.checkpoint, stamp, folder, sample, selected.timestep, png, label_of(trace, sample))
    n, known = len(e.u), e.exit_layer(selected.threshold) if selected.threshold is not None else len(e.u) // 2
    layer = min(known if selected.layer is None else selected.layer, n)
    # One scale for the circles and the maps: equal colours are equal numbers everywhere on the page.
    highest = math.ceil(20 * max(0.05, float(np.nanmax(np.append(e.u, e.errors))))) / 20
    model, schedule = cache.get_model(selected.checkpoint)
    return Example(e, model, schedule.alphas_bar.numpy(), sample, layer, highest)


def method_page(selected: Selection) -> None:
    """The page."""
    if selected.checkpoint is None:
        no_checkpoint(selected.run, "there is no model to draw the method from")
        return
    example = make_example(selected)
    if example is None:
        st.info("This page needs a stored image, and no trace of this run has one.")
        no_trace(selected.run)
        return
    panels = [noise_panel(example), network_panel(example)]
    if len(example.e.u):
        panels.append(uem_panel(example))
    show([*panels, GLOSSARY_LINK], selected)


with guarded():
    method_page(current())
