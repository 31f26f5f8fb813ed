"""One number per layer and timestep, as a heatmap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import DIFFERENCE, UNCERTAINTY, Mark, Spec

Floats = NDArray[np.float64]


def layer_heatmap(
    values: Floats,  # (T', N), NaN where there is no exit
    timesteps: list[int],  # (T',) from T−1 down
    name: str,
    signed: bool,  # from −1 to 1, such as a correlation; else from 0
    mark: Mark,
) -> Spec:
    """One number per layer and calibrated timestep, in columns of equal width."""
    layers = values.shape[1]
    highest = float(np.ceil(np.nanmax(values) * 50) / 50) if not signed else 1.0
    column = np.arange(len(timesteps))
    detail = np.repeat(np.asarray(timesteps)[None], layers, 0)
    scale: dict[str, Any] = {"colorscale": DIFFERENCE if signed else UNCERTAINTY}
    heatmap = {
        "type": "heatmap",
        "x": figures.packed(column),
        "z": figures.packed(values.T),
        "customdata": figures.packed(detail),
        "zmin": -1 if signed else 0,
        "zmax": highest,
        "hoverongaps": False,
        **scale,
        "colorbar": {"title": {"text": name, "side": "right"}, "thickness": 12},
        "hovertemplate": f"timestep %{{customdata}}<br>layer %{{y}}<br>{name} = %{{z:.4f}}<extra></extra>",
    }
    middle = figures.middle_block(layers, "white")
    if mark.timestep is not None:
        nearest = int(np.abs(np.asarray(timesteps) - mark.timestep).argmin())
        middle["shapes"] += figures.crosshair(Mark(nearest, mark.layer), list(column))
    shown = np.linspace(0, len(timesteps) - 1, min(6, len(timesteps))).round().astype(int)
    ticks = {"tickvals": shown.tolist(), "ticktext": [str(timesteps[k]) for k in shown]}
    x = figures.axis("timestep t  (sampling runs from left to right)", range=[-0.5, len(timesteps) - 0.5], **ticks)
    return figures.spec([heatmap], x, figures.depth_axis(layers - 1, "layer  (blocks run before the UEM)"), **middle)
