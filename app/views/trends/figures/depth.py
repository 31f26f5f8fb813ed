"""Figures over depth: exits at one timestep, and the share of samples that arrive at each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import FULL, Line, Mark, Spec

Floats = NDArray[np.float64]


def at_timestep(
    shares: list[Line],  # (N+1,) share of samples that exit at each layer
    uncertainties: list[Line],  # (N,) mean u with its spread; may be empty
    threshold: float | None,
    mark: Mark,
) -> Spec:
    """Left: exits at one timestep. Right, on the same depth axis: u."""
    layers = len(shares[0].values)
    edge = 0.5 if uncertainties else 1.0
    data: list[figures.Trace] = []
    for line in shares:
        solid = line is shares[0]
        look: dict[str, Any] = (
            {"color": line.color} if solid else {"color": "rgba(0,0,0,0)", "line": {"color": line.color, "width": 2}}
        )
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": figures.packed(np.arange(layers)),
                "x": figures.packed(line.values),
                "name": line.name,
                "marker": look,
                "hovertemplate": f"{line.name}<br>exit layer %{{y}}: %{{x:.2%}} of samples<extra></extra>",
            }
        )
    for line in uncertainties:
        spread = np.zeros(len(line.values)) if line.spread is None else line.spread
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "xaxis": "x2",
                "name": line.name,
                "showlegend": False,
                "y": figures.packed(np.arange(len(line.values))),
                "x": figures.packed(line.values),
                "line": {"color": line.color, "width": 2},
                "marker": {"size": 7},
                "error_x": {"array": figures.packed(spread), "color": line.color, "thickness": 1, "width": 3},
                "customdata": figures.packed(spread),
                "hovertemplate": f"{line.name}<br>layer %{{y}}: u = %{{x:.4f}} ± %{{customdata:.4f}}<extra></extra>",
            }
        )
    marks = figures.middle_block(layers - 1, FULL)
    if uncertainties and threshold is not None:
        dotted = {"color": FULL, "width": 1.5, "dash": "dot"}
        marks["shapes"].append(
            {
                "type": "line",
                "x0": threshold,
                "x1": threshold,
                "xref": "x2",
                "y0": 0,
                "y1": 1,
                "yref": "y domain",
                "line": dotted,
            }
        )
        marks["annotations"].append(
            {
                "x": threshold,
                "xref": "x2",
                "y": 1,
                "yref": "y domain",
                "text": f"τ = {threshold:.3f}",
                "xanchor": "left",
                "yanchor": "top",
                "showarrow": False,
                "font": {"size": 11},
            }
        )
    if mark.layer is not None:
        band = {"type": "rect", "x0": 0, "x1": 1, "xref": "paper", "y0": mark.layer - 0.5, "y1": mark.layer + 0.5}
        marks["shapes"].append({**band, "name": figures.SELECTED, "line": {"color": FULL, "width": 1}})
    x = figures.axis("share of samples", range=[0, 1.02], domain=[0, edge - 0.03], tickformat=".0%")
    more: dict[str, Any] = {}
    if uncertainties:
        more["xaxis2"] = figures.axis("u", domain=[edge + 0.03, 1], rangemode="tozero")
    depth = figures.depth_axis(layers - 1, "exit layer")
    return figures.spec(data, x, depth, showlegend=len(shares) > 1, barmode="overlay", **more, **marks)


def still_inside(lines: list[Line], mark: Mark) -> Spec:
    """Share of samples that arrive at each layer."""
    layers = max((len(line.values) for line in lines), default=1)
    depth = figures.packed(np.arange(layers))
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": line.name,
            "x": depth,
            "y": figures.packed(line.values),
            "marker": {"size": 6},
            "line": {"color": line.color, "width": 2, "shape": "hv", "dash": "dot" if line.estimated else "solid"},
            "hovertemplate": f"{line.name}<br>%{{y:.2%}} of samples arrive at layer %{{x}}<extra></extra>",
        }
        for line in lines
    ]
    marks = figures.middle_block(layers - 1, FULL, along="x")
    if mark.layer is not None:
        line = {"color": FULL, "width": 1}
        where = {"x0": mark.layer, "x1": mark.layer, "y0": 0, "y1": 1, "yref": "y domain"}
        marks["shapes"].append({"type": "line", "name": figures.SELECTED, **where, "line": line})
    x = figures.axis("layer  (blocks run)", range=[-0.3, layers - 0.7], dtick=1)
    y = figures.axis("share of samples still inside", range=[-0.02, 1.04], tickformat=".0%", showgrid=True)
    return figures.spec(data, x, y, showlegend=True, **marks)
