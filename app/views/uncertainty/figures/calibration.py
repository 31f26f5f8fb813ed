"""Predicted against actual error."""

from __future__ import annotations

import numpy as np
import pandas as pd

from app.widgets import figures
from app.widgets.figures import FULL, Spec


def reliability_curves(table: pd.DataFrame, num_blocks: int, chosen: int | None, name: str) -> Spec:
    """Columns layer, predicted, actual, count: a line per layer, the selected one highlighted."""
    highest = float(np.ceil(max(table["predicted"].max(), table["actual"].max()) * 20) / 20)
    colors, largest = figures.ordered_colors(num_blocks), table["count"].max()
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
