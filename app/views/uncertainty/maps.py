"""u over the image: the maps that were recorded for some samples of a trace."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from app.state import cache
from app.state.selection import Selection, select
from app.views.uncertainty import findings
from app.views.uncertainty.figures.maps import map_over_image, maps_by_layer
from app.widgets.panels import Panel, Picture, section, show
from app.widgets.plot import Point
from deediff.traces.reader import Trace


@st.cache_data(max_entries=8, show_spinner="Reading the maps …")
def _maps(_trace: Trace, key: tuple[str, int], sample: int) -> np.ndarray:
    return _trace.maps(sample)


def draw_maps(selection: Selection) -> None:
    """The maps of the selected sample, or of the first one that has maps."""
    section("u over the image")
    trace = selection.trace
    assert trace is not None
    recorded = trace.map_samples
    if not recorded:
        where = selection.run.path / "checkpoints"
        first = "" if selection.checkpoint is not None else f", once its weights are in {where}"
        st.info(
            f"This trace holds no maps of u over the image. This command adds those of its first four samples{first}:"
        )
        st.code(f"deediff maps {trace.path}", language="bash")
        return
    sample = selection.sample if selection.sample in recorded else recorded[0]
    if selection.sample is not None and selection.sample not in recorded:
        st.caption(f"Sample {selection.sample} has no maps; those of sample {sample} are shown.")
    maps = _maps(trace, (str(trace.path), cache.stamp(trace)), sample)
    here = maps[selection.step]
    if np.isnan(here).all():
        st.info(f"At t = {selection.timestep}, no UEM was queried for sample {sample}: choose another timestep.")
        return
    queried = np.flatnonzero(~np.isnan(here).all(axis=(1, 2)))
    layer = selection.layer if selection.layer is not None and selection.layer in queried else int(queried[-1])
    top = float(np.ceil(np.nanmax(maps) * 20) / 20)
    mosaic = Panel(
        "u over the image by layer",
        lambda s: _mosaic(s, here, sample, layer, top),
        help="One map per layer of the selected sample at the selected timestep, on one colour scale: each cell is a "
        "patch. Maps of layers after the exit are empty. Click a map to select its layer.",
    )
    single = Panel(
        "u over the image",
        lambda s: _single(s, trace, here[layer], sample, layer, top),
        help="The map of the selected layer over the finished image. The u that decides (Eq. 5) is the mean over all "
        "tokens that the UEM reads: these patches, and in some models the timestep's token.",
    )
    show([[(mosaic, 3), (single, 2)]], selection, key="panels maps", level=3)


MAPS = Panel("maps", draw_maps)


def _mosaic(selection: Selection, here: np.ndarray, sample: int, layer: int, top: float) -> Picture:
    title = findings.about_map(here[layer], layer)
    subtitle = f"u of each patch, layers 0 … {len(here) - 1} · sample {sample}, t = {selection.timestep} · measured"
    return Picture(title, subtitle, maps_by_layer(here, top, layer), partial(_table, here), _select_map)


def _select_map(point: Point) -> None:
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
