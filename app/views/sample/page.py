"""Sample: one image beside the full network's, its exit layers and u over time, and its path from noise to image."""

from __future__ import annotations

import streamlit as st

from app.state.selection import Selection, current
from app.views.sample.film import FilmJob
from app.views.sample.frames import film_of, frames_panel
from app.views.sample.header import HEADER
from app.views.sample.image import image_panel
from app.views.sample.lens.panel import LENS
from app.views.sample.neighbours import NEIGHBOURS
from app.views.sample.path import path_panel
from app.widgets import inputs
from app.widgets.empty import no_trace
from app.widgets.films.player import choose_mode
from app.widgets.panels import Panel, Row, guarded, needs_trace, show
from deediff.errors import UserError

VIEWS = {"film": "Film", "lens": "Diffusion lens", "near": "Neighbours"}
PROMPT = 1.0  # seconds for which a film is waited for, so that a short one is drawn without a second run


def sample_page(selected: Selection) -> None:
    """The page."""
    if not selected.run.traces:
        no_trace(selected.run)
        return
    if (missing := needs_trace(selected)) is not None:
        st.info(missing)
        return
    assert selected.trace is not None
    options = {"format_func": VIEWS.__getitem__, "width": "content", "label_visibility": "collapsed"}
    with st.container(horizontal=True, gap="medium", key="sample_views"):
        view = inputs.segmented_control("From noise to image", list(VIEWS), "sample_view", "film", **options)
        if view != "near":
            choose_mode()
    if view == "lens":
        show([HEADER, LENS], selected, key="panels lens")
        return
    if view == "near":
        show([HEADER, NEIGHBOURS], selected, key="panels neighbours")
        return
    job: FilmJob | None = None
    problem = ""
    try:
        job = film_of(selected, selected.trace)
    except UserError as error:
        problem = str(error)
    panels: list[Row | Panel] = [HEADER, [(image_panel(job, not problem), 2), (path_panel(job, not problem), 3)]]
    show(panels, selected)
    if problem:
        st.info(problem)
    else:
        if job is not None:
            job.join(PROMPT)
        show([frames_panel(job)], selected, key="film panel")


with guarded():
    sample_page(current())
