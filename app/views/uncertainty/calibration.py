"""Predicted against actual error: the calibration beside the checkpoint, or the command that makes one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.state import cache, link
from app.state.selection import Selection, select
from app.views.uncertainty import findings
from app.views.uncertainty.figures.calibration import reliability_curves
from app.widgets import inputs
from app.widgets.empty import no_checkpoint, offer_calibration
from app.widgets.figures import Mark
from app.widgets.panels import Panel, Picture, section, show
from app.widgets.pictures.layer_heatmap import layer_heatmap
from app.widgets.plot import Point

if TYPE_CHECKING:
    from deediff.calibration.file import Calibration

Floats = NDArray[np.float64]
ALL = -1  # instead of a timestep
MEASURES = {"ECE": False, "rank correlation": True}  # name → whether it has a sign


@st.cache_data(max_entries=8, show_spinner="Comparing u with the actual errors …")
def calibration_numbers(_calibration: Calibration, sha256: str) -> tuple[pd.DataFrame, Floats, Floats]:
    """Reliability curves with one row per timestep (−1: all together), layer and bin; ECE; Spearman's ρ.

    The latter two per timestep and layer (T', N), NaN where there is no exit.
    """
    from deediff.calibration.statistics import expected_calibration_error, rank_correlation, reliability

    without = [i for i in range(_calibration.u.shape[2]) if i not in _calibration.layers]
    ece = expected_calibration_error(_calibration.u, _calibration.error)
    rank = rank_correlation(_calibration.u, _calibration.error)
    ece[:, without] = rank[:, without] = np.nan
    together = reliability(_pooled(_calibration)).assign(timestep=ALL)
    return pd.concat([reliability(_calibration), together], ignore_index=True), ece, rank


def _pooled(calibration: Calibration) -> Calibration:
    """Every image at every timestep as one more image of a single timestep."""
    u, error = (x.reshape(1, -1, x.shape[2]) for x in (calibration.u, calibration.error))
    return replace(calibration, timesteps=calibration.timesteps[:1], u=u, error=error)


def draw_calibration(selection: Selection) -> None:
    """Two panels, or the command that makes the calibration."""
    section("Calibration of u")
    if selection.checkpoint is None:
        no_checkpoint(selection.run, "there are no UEMs to calibrate")
        return
    calibration = cache.get_calibration(selection.checkpoint)
    if calibration is None:
        sentence = "This checkpoint has no calibration yet: u has not been compared with the error on held-out images."
        offer_calibration(sentence, selection.checkpoint)
        return
    found = calibration_numbers(calibration, calibration.sha256)
    with link.one_step():
        left, right = st.columns(2)
        with left:
            times = ["all timesteps", "selected timestep"]
            whole = inputs.segmented_control("Curves", times, "calibration t", "all timesteps")
        with right:
            measure = inputs.segmented_control(
                "Per layer and timestep",
                list(MEASURES),
                "calibration measure",
                "ECE",
                help="ECE: mean |predicted − actual| over ten bins of equally many images. Rank correlation: "
                "Spearman's ρ of u and the error across images; 1: u orders the images perfectly, 0: u is independent "
                "of the error.",
            )
    curves = Panel(
        "reliability",
        lambda s: _curves(s, calibration, found, whole == "all timesteps"),
        help="Each point is a bin of images with similar u, sized by their count: on the dashed diagonal u equals the "
        "error (Eq. 6: mean tanh|g_i − target|), above it u is too low. The selected layer is highlighted; click a "
        "point to select its layer.",
    )
    heatmap = Panel(
        f"calibration {measure}",
        lambda s: _heatmap(s, calibration, found, measure),
        help="Distance of u from the actual error, or how well u orders images by it, at every layer and calibrated "
        "timestep. Click a cell to select it.",
    )
    show([[(curves, 1), (heatmap, 1)]], selection, key="panels calibration", level=3)


CALIBRATION = Panel("calibration", draw_calibration)


def _about(calibration: Calibration) -> str:
    info = calibration.info
    return f"{info.get('images', calibration.u.shape[1])} images of {info.get('dataset')} ({info.get('split')})"


def _curves(
    selection: Selection, calibration: Calibration, found: tuple[pd.DataFrame, Floats, Floats], whole: bool
) -> Picture:
    table, ece, rank = found
    nearest = int(np.abs(calibration.timesteps - selection.timestep).argmin())
    timestep = int(calibration.timesteps[nearest])
    layer = selection.layer if selection.layer is not None and selection.layer < ece.shape[1] else None
    if whole:
        subtitle = f"measured at {len(calibration.timesteps)} timesteps · {_about(calibration)}"
    else:
        subtitle = f"measured at t = {timestep}, the calibrated timestep nearest to {selection.timestep} · "
        subtitle += _about(calibration)
        if layer is not None:
            subtitle += f" · layer {layer}: ECE {ece[nearest, layer]:.4f}, ρ = {rank[nearest, layer]:.3f}"
    rows = table[table["timestep"] == (ALL if whole else timestep)]
    figure = reliability_curves(rows, ece.shape[1], layer, "mean tanh|error|")
    title = findings.about_calibration(ece, rank, layer)
    return Picture(title, subtitle, figure, lambda: rows, _select_curve)


def _select_curve(point: Point) -> None:
    if point["customdata"]:
        select(layer=round(point["customdata"][0]))


def _heatmap(
    selection: Selection, calibration: Calibration, found: tuple[pd.DataFrame, Floats, Floats], measure: str
) -> Picture:
    _, ece, rank = found
    values = (rank if MEASURES[measure] else ece)[::-1]  # from T−1 down, as sampling runs
    times = calibration.timesteps[::-1].tolist()
    figure = layer_heatmap(values, times, measure, MEASURES[measure], Mark(selection.timestep, selection.layer))
    title = findings.about_extremes(values, times, measure)
    subtitle = f"{measure} of u against mean tanh|error| · measured · {_about(calibration)}"
    return Picture(title, subtitle, figure, partial(_table, calibration, ece, rank), partial(_select_cell, times))


def _select_cell(times: list[int], point: Point) -> None:
    select(timestep=times[round(point["x"])], layer=round(point["y"]))


def _table(calibration: Calibration, ece: Floats, rank: Floats) -> pd.DataFrame:
    steps, layers = ece.shape
    return pd.DataFrame(
        {
            "timestep": np.repeat(calibration.timesteps, layers),
            "layer": np.tile(np.arange(layers), steps),
            "ece": ece.ravel(),
            "rank_correlation": rank.ravel(),
        }
    )
