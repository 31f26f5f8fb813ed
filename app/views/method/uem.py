"""One exit: its head's prediction, the error, and the UEM's prediction of the error."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from app.state.selection import Selection
from app.views.method.example import Example, image_png, select_exit
from app.views.method.figures import heat, u_and_error
from app.widgets.gallery import Tile, encode, gallery
from app.widgets.panels import Panel, heading, section
from app.widgets.plot import chart

EXIT_HELP = (
    "The UEM reads the same tokens as block i (before its long skip is joined). An MLP's u = sigmoid(wᵀ L + b), "
    "averaged over tokens (Eq. 5), is trained towards û = mean tanh|g_i − target| (Eq. 6–7)."
)
CURVE_HELP = (
    "A sample exits at the first layer whose u is ≤ τ. Where the solid line is below the dotted one, u is too low; "
    "û can be computed here because the noise is known, during sampling it is not."
)


def uem_panel(example: Example) -> Panel:
    """The selected exit, and u beside the error at every exit."""
    return Panel("uem", partial(_draw_uem, example))


def _draw_uem(example: Example, selected: Selection) -> None:
    e, layer, n = example.e, example.layer, len(example.e.u)
    section("3 · The UEM predicts the error from the block's input")
    has_uem = layer < n and not np.isnan(e.u[layer])
    prediction = f"its prediction is u = {e.u[layer]:.3f}" if has_uem else "there is no UEM"
    st.markdown(
        f"Its input is that of block {min(layer, n - 1)}, one vector per patch of the image, without the true noise "
        f"or the head's output. At exit {layer} {prediction}; the head's actual error is û = {e.errors[layer]:.3f}. "
        "Select another exit by a click, or with *Layer* in the sidebar."
    )
    left, right = st.columns([1.15, 1], gap="medium")
    with left:
        _draw_exit(example, has_uem)
    with right:
        _draw_curve(example, selected)


def _draw_exit(example: Example, has_uem: bool) -> None:
    e, layer, highest = example.e, example.layer, example.highest
    title = f"Exit {layer}: the head's prediction, its error, and the error that the UEM predicts"
    heading(title, f"colours from 0 (dark) to {highest:g} (bright)", EXIT_HELP, level=3)
    error = e.errors[layer]
    tiles = [
        Tile(image_png(e.noisy), f"x_t at t = {e.timestep}", "input of the network"),
        Tile(
            image_png(e.predictions[layer], not example.predicts_image),
            f"prediction of exit {layer}",
            f"target: {example.exit_target}",
        ),
        Tile(
            encode(heat(e.error_maps[layer], highest)),
            f"its error: û = {error:.3f}",
            f"tanh|prediction − target| of every pixel, Eq. 6; mean {error:.4f}",
        ),
    ]
    if e.u_maps is not None and has_uem:
        hover = f"u of every image token; over all tokens u = {e.u[layer]:.4f}"
        tiles.append(Tile(encode(heat(e.u_maps[layer], highest)), f"UEM: u = {e.u[layer]:.3f}", hover))
    gallery("method exit", tiles, len(tiles))


def _draw_curve(example: Example, selected: Selection) -> None:
    e = example.e
    table = pd.DataFrame({"exit": range(len(e.u) + 1), "u": [*e.u.tolist(), None], "error": e.errors.tolist()})
    gap = float(np.nanmean(np.abs(e.u - e.errors[:-1])))
    title = f"u differs from the actual error by {gap:.3f} on average"
    heading(title, f"this image at t = {e.timestep}", CURVE_HELP, lambda: table, "u and error", level=3)
    figure = u_and_error(e.u, e.errors, selected.threshold, example.layer)
    chart(figure, "plot u and error", "u and the actual error per exit", select_exit)
