"""u over the image: one map of patches per layer."""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import UNCERTAINTY, Spec

HIDDEN = {"visible": False, "fixedrange": True}


def map_over_image(u: NDArray[np.float32], png: bytes | None, highest: float) -> Spec:
    """u of each patch (h, w), half transparent over the image; without an image, alone."""
    rows, columns = u.shape
    heatmap = {
        "type": "heatmap",
        "z": figures.packed(u),
        "zmin": 0,
        "zmax": highest,
        "colorscale": UNCERTAINTY,
        "opacity": 0.6 if png is not None else 1.0,
        "colorbar": {"title": {"text": "u", "side": "right"}, "thickness": 12},
        "hovertemplate": "patch row %{y}, column %{x}<br>u = %{z:.4f}<extra></extra>",
    }
    images = []
    if png is not None:
        images.append(
            {
                "source": "data:image/png;base64," + base64.b64encode(png).decode("ascii"),
                "xref": "x",
                "yref": "y",
                "x": -0.5,
                "y": -0.5,
                "sizex": columns,
                "sizey": rows,
                "sizing": "stretch",
                "layer": "below",
            }
        )
    x = {**HIDDEN, "range": [-0.5, columns - 0.5], "constrain": "domain"}
    y = {**HIDDEN, "range": [rows - 0.5, -0.5], "scaleanchor": "x", "constrain": "domain"}
    return figures.spec([heatmap], x, y, height=380, images=images)


def maps_by_layer(u: NDArray[np.float32], highest: float, chosen: int | None, columns: int = 5) -> Spec:
    """The maps of all layers (N, h, w) side by side, layer 0 at the bottom left; `customdata` is the layer."""
    layers, height, width = u.shape
    rows = -(-layers // columns)
    tile_h, tile_w = height + 2, width + 1  # room for the layer's number above a map
    picture = np.full((rows * tile_h, columns * tile_w), np.nan, np.float32)
    number = np.full(picture.shape, -1)
    notes, shapes = [], []
    for layer in range(layers):
        top, left = layer // columns * tile_h, layer % columns * tile_w
        picture[top : top + height, left : left + width] = u[layer, ::-1]  # rows are drawn upward
        number[top : top + tile_h, left : left + tile_w] = layer
        notes.append(
            {
                "x": left + width / 2 - 0.5,
                "y": top + height - 0.6,
                "text": str(layer),
                "showarrow": False,
                "yanchor": "bottom",
                "font": {"size": 11},
            }
        )
        if layer == chosen:
            box = {
                "type": "rect",
                "x0": left - 0.5,
                "x1": left + width - 0.5,
                "y0": top - 0.5,
                "y1": top + height - 0.5,
                "name": figures.SELECTED,
            }
            shapes += [{**box, "line": {"color": color, "width": wide}} for color, wide in (("black", 4), ("white", 2))]
    heatmap = {
        "type": "heatmap",
        "z": figures.packed(picture),
        "customdata": figures.packed(number),
        "zmin": 0,
        "zmax": highest,
        "colorscale": UNCERTAINTY,
        "showscale": False,
        "hoverongaps": False,
        "hovertemplate": "layer %{customdata}<br>u = %{z:.4f}<extra></extra>",
    }
    x = {**HIDDEN, "range": [-0.5, picture.shape[1] - 0.5], "constrain": "domain"}
    y = {**HIDDEN, "range": [-0.5, picture.shape[0] + 0.5], "scaleanchor": "x", "constrain": "domain"}
    return figures.spec([heatmap], x, y, height=380, annotations=notes, shapes=shapes)
