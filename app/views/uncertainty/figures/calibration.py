"""Predicted against actual error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import DIFFERENCE, FULL, UNCERTAINTY, Mark, Spec

Floats = NDArray[np.float64]


def depth_colors(layers: int) -> list[str]:
    """One colour per layer, on the scale of u without its ends, which are invisible on black or white."""
    from plotly.colors import sample_colorscale

    return sample_colorscale(UNCERTAINTY, list(np.linspace(0.2, 0.92, layers)))


def reliability_curves(table: pd.DataFrame, num_blocks: int, chosen: int | None, name: str) -> Spec:
    """Columns layer, predicted, actual, count: a line per layer, the selected one highlighted."""
    highest = float(np.ceil(max(table["predicted"].max(), table["actual"].max()) * 20) / 20)
    colors, largest = depth_colors(num_blocks), table["count"].max()
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, highest],
        "y": [0, highest],
        "name": "u = error",
        "line": {"color": FULL, "dash": "dash", "width": 1.5},
        "hoverinfo": "skip",
    }
    data: list[figures.Trace] = [diagonal]
    known = sorted(int(layer) for layer in table["layer"].unique())
    for layer in sorted(known, key=lambda layer: layer == chosen):  # the selected one on top
        rows = table[table["layer"] == layer].sort_values("predicted")
        counts = rows["count"].to_numpy()
        bold = chosen is None or layer == chosen
        detail = np.stack([np.full(len(rows), layer), counts], axis=-1)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"layer {layer}",
                "opacity": 1.0 if bold else 0.25,
                "x": figures.packed(rows["predicted"].to_numpy()),
                "y": figures.packed(rows["actual"].to_numpy()),
                "line": {"color": colors[layer], "width": 3 if layer == chosen else 1.5},
                "marker": {"size": figures.packed(3 + 5 * np.sqrt(counts / largest)), "color": colors[layer]},
                "customdata": figures.packed(detail),
                "hovertemplate": f"layer {layer}<br>predicted u = %{{x:.4f}}<br>actual {name} = %{{y:.4f}}<br>"
                "%{customdata[1]} images<extra></extra>",
            }
        )
    x = figures.axis("predicted: u", range=[0, highest * 1.02], showgrid=True)
    y = figures.axis(f"actual: {name}", range=[0, highest * 1.02], showgrid=True)
    beside = {"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top", "traceorder": "normal"}
    return figures.spec(data, x, y, showlegend=True, legend=beside)


def calibration_heatmap(
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
    middle = figures.middle_block(layers, "black" if signed else "white")
    if mark.timestep is not None:
        nearest = int(np.abs(np.asarray(timesteps) - mark.timestep).argmin())
        middle["shapes"] += figures.crosshair(Mark(nearest, mark.layer), list(column))
    shown = np.linspace(0, len(timesteps) - 1, min(6, len(timesteps))).round().astype(int)
    ticks = {"tickvals": shown.tolist(), "ticktext": [str(timesteps[k]) for k in shown]}
    x = figures.axis("timestep t  (sampling runs from left to right)", range=[-0.5, len(timesteps) - 0.5], **ticks)
    return figures.spec([heatmap], x, figures.depth_axis(layers - 1, "layer  (blocks run before the UEM)"), **middle)
