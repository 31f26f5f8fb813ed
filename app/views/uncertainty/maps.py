"""u over the image: the maps that were logged for some samples of a trace."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from app.state import cache
from app.state.selection import Selection, select
from app.views.uncertainty.figures.maps import map_over_image, maps_by_layer
from app.widgets import findings
from app.widgets.panels import Panel, Picture, show
from app.widgets.plot import Point
from deediff.traces.reader import Trace


@st.cache_data(max_entries=8, show_spinner="Reading the maps …")
def _maps(_trace: Trace, key: tuple[str, int], sample: int) -> np.ndarray:
    return _trace.maps(sample)


def draw(selection: Selection) -> None:
    """The maps of the selected sample, or of the first one that has some."""
    st.subheader("Where in the image?", anchor=False)
    trace = selection.trace
    assert trace is not None
    logged = trace.map_samples
    if not logged:
        where = selection.run.path / "checkpoints"
        first = "" if selection.checkpoint is not None else f", once its weights stand in {where}"
        st.info(
            f"This trace holds no maps of u over the image. This command adds those of its first four samples{first}:"
        )
        st.code(f"deediff maps {trace.path}", language="bash")
        return
    sample = selection.sample if selection.sample in logged else logged[0]
    if selection.sample is not None and selection.sample not in logged:
        st.caption(f"Sample {selection.sample} has no maps; those of sample {sample} are shown.")
    maps = _maps(trace, (str(trace.path), cache.stamp(trace)), sample)
    here = maps[selection.step]
    if np.isnan(here).all():
        st.info(f"At t = {selection.timestep} no UEM was asked for sample {sample}: choose another timestep.")
        return
    asked = np.flatnonzero(~np.isnan(here).all(axis=(1, 2)))
    layer = selection.layer if selection.layer is not None and selection.layer in asked else int(asked[-1])
    top = float(np.ceil(np.nanmax(maps) * 20) / 20)
    mosaic = Panel(
        "u over the image by layer",
        [],
        "One map per layer of the selected sample at the selected timestep, on one colour scale: each cell is a patch. "
        "Empty maps are of layers after the exit. Click a map to select its layer.",
        lambda s: _mosaic(s, here, sample, layer, top),
    )
    single = Panel(
        "u over the image",
        [],
        "The map of the selected layer over the finished image. The u that decides (Eq. 5) is the mean over all tokens "
        "that the UEM looks at: these patches, and in some models the timestep's token.",
        lambda s: _single(s, trace, here[layer], sample, layer, top),
    )
    show([[(mosaic, 3), (single, 2)]], selection, key="panels maps")


def _mosaic(selection: Selection, here: np.ndarray, sample: int, layer: int, top: float) -> Picture:
    title = findings.about_map(here[layer], layer)
    subtitle = f"u of each patch, layers 0 … {len(here) - 1} · sample {sample}, t = {selection.timestep} · measured"
    return Picture(title, subtitle, maps_by_layer(here, top, layer), partial(_table, here), _pick)


def _pick(point: Point) -> None:
    layer = point["customdata"]
    layer = layer[0] if isinstance(layer, list) else layer
    if layer is not None and layer >= 0:
        select(layer=layer)


def _single(selection: Selection, trace: Trace, u: np.ndarray, sample: int, layer: int, top: float) -> Picture:
    images = trace.images(range(sample, sample + 1))
    title = f"Layer {layer}: mean u {float(np.mean(u)):.3f} over {u.size} patches"
    subtitle = f"sample {sample}, t = {selection.timestep} (step {selection.step})"
    figure = map_over_image(u, images[0] if images else None, top)
    return Picture(title, subtitle, figure, partial(_table, u[None], layer))


def _table(here: np.ndarray, first: int = 0) -> pd.DataFrame:
    layer, row, column = np.indices(here.shape)
    layer += first
    return pd.DataFrame({"layer": layer.ravel(), "row": row.ravel(), "column": column.ravel(), "u": here.ravel()})
