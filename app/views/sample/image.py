"""The sample's image, the full network's of the same seed, their difference, and the sample's measures."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app.state.selection import Selection
from app.state.traces import damaged_images, full_of
from app.views.sample.film import FilmJob
from app.views.sample.stored import number_of, stored_image
from app.widgets import gallery
from app.widgets.films.player import Pair, wipe_images, wiping
from app.widgets.image_difference import AMPLIFY, LEGEND, image_difference
from app.widgets.panels import Panel
from app.widgets.samples import ordering
from app.widgets.samples.ordering import ORDERS
from deediff.errors import UserError
from deediff.traces.reader import Trace


def image_panel(job: FilmJob | None, film_comes: bool) -> Panel:
    """Images that are not stored are taken from the film, once there is one."""
    return Panel("sample image", partial(_draw_image, job, film_comes))


def _draw_image(job: FilmJob | None, film_comes: bool, selected: Selection) -> None:
    trace, number = selected.trace, number_of(selected)
    assert trace is not None
    mine, full = stored_image(trace, number), stored_image(full_of(trace), number)
    damaged = damaged_images(trace) if mine is None else None
    if job is not None and job.film is not None and job.full is not None:
        mine = job.film.image if mine is None else mine
        full = job.full.image if full is None else full
    if mine is None:
        how = "the film below recomputes it" if film_comes else "it was not recorded, or not copied with the trace"
        st.info(f"{damaged or ''} The image of sample {number} is not stored: {how}.".strip())
        return
    if damaged:
        st.info(f"{damaged} This one is of the film below.")
    is_full = trace.meta.is_full
    tiles = [gallery.Tile(gallery.encode(mine), trace.meta.title, f"sample {number} of {trace.path.name}")]
    if is_full:
        st.caption("This trace is the full network's: there is nothing to compare with.")
    elif full is not None:
        picture, change = image_difference(mine, full)
        tiles.append(gallery.Tile(gallery.encode(full), "full network", "the full network's image of the same seed"))
        hover = f"mean absolute difference {float(change):.3f} grey levels"
        tiles.append(gallery.Tile(gallery.encode(picture), f"difference × {AMPLIFY}", hover))
    if len(tiles) > 1 and wiping():
        titles = (f"Trace A, {trace.meta.title}", "Full network")
        wipe_images("sample wiped images", titles, [Pair(tiles[0].png, tiles[1].png)], columns=1)
    else:
        gallery.gallery("sample images", tiles, columns=3)
    if not is_full:
        pending = "is shown once the film below is computed" if film_comes else "is missing"
        if full is None:
            st.caption(f"The full network's image {pending}.")
        elif not wiping():
            st.caption(LEGEND)
    _draw_measures(trace, number, is_full)


def _draw_measures(trace: Trace, number: int, is_full: bool) -> None:
    """Every measure of the sample that the trace holds."""
    with st.container(horizontal=True, key="sample_figures", gap="medium"):
        for name, order in ORDERS.items():
            if name == "sample" or (order.against_full and is_full):
                continue
            try:
                value = ordering.sample_measure(trace, name).get(number)
            except UserError:
                continue
            if value is not None:
                st.metric(order.label, order.text.format(value), width="content", help=order.help)
