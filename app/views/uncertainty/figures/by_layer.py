"""u over layers and time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import FULL, UNCERTAINTY, Line, Mark, Spec

DEPTH = "layer  (blocks run before the UEM)"
TOLERANCE = 1e-3  # a smaller rise of the mean u with depth is not marked


def uncertainty_heatmap(
    mean: NDArray[np.float64],  # (S, N), NaN where no sample arrived
    counts: NDArray[np.int64],  # (S, N) samples behind each mean
    timesteps: list[int],
    highest: float,  # upper end of the colour scale, the same for everything on screen
    mark: Mark | None = None,
) -> Spec:
    """Mean u per layer and timestep; white lines where it rises with depth."""
    steps, layers = mean.shape
    detail = np.stack([counts.T, np.repeat(np.arange(steps)[None], layers, 0)], axis=-1)  # (N, S, 2)
    heatmap = {
        "type": "heatmap",
        "x": figures.packed(np.asarray(timesteps)),
        "z": figures.packed(mean.T),
        "zmin": 0,
        "zmax": highest,
        "colorscale": UNCERTAINTY,
        "hoverongaps": False,
        "customdata": figures.packed(detail),
        "colorbar": {"title": {"text": "mean u", "side": "right"}, "thickness": 12},
        "hovertemplate": "timestep %{x} (step %{customdata[1]})<br>layer %{y}<br>"
        "mean u = %{z:.4f} (%{customdata[0]} samples)<extra></extra>",
    }
    middle = figures.middle_block(layers, "white")
    middle["shapes"] += figures.crosshair(mark or Mark(), timesteps)
    return figures.spec(
        [heatmap, *_rises(mean, timesteps)],
        figures.time_axis(timesteps),
        figures.depth_axis(layers - 1, DEPTH),
        **middle,
    )


def _rises(mean: NDArray[np.float64], timesteps: list[int]) -> list[figures.Trace]:
    """Lines between two layers, over the steps at which u is higher above than below."""
    half = (timesteps[0] - timesteps[-1]) / max(1, len(timesteps) - 1) / 2 or 0.5
    x: list[float] = []
    y: list[float] = []
    rising = np.pad(rises(mean), ((1, 1), (0, 0))).astype(int)  # (S+2, N−1)
    for boundary in range(rising.shape[1]):
        change = np.diff(rising[:, boundary])
        for first, end in zip(np.flatnonzero(change > 0), np.flatnonzero(change < 0), strict=True):
            x += [timesteps[first] + half, timesteps[end - 1] - half, np.nan]
            y += [boundary + 0.5, boundary + 0.5, np.nan]
    if not x:
        return []
    common = {
        "type": "scatter",
        "mode": "lines",
        "x": figures.packed(np.asarray(x)),
        "y": figures.packed(np.asarray(y)),
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [
        {**common, "line": {"color": "black", "width": 3}, "opacity": 0.5},
        {**common, "line": {"color": "white", "width": 1}},
    ]


def rises(mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where u is higher than one layer below, by more than TOLERANCE: (…, N) → (…, N−1)."""
    with np.errstate(invalid="ignore"):
        return np.diff(mean, axis=-1) > TOLERANCE


def uncertainty_curves(lines: list[Line], threshold: float | None, highest: float) -> Spec:
    """Mean u over depth at one timestep, with one standard deviation over samples."""
    data = []
    for line in lines:
        spread = np.zeros(len(line.values)) if line.spread is None else line.spread
        symbols = ["circle", *np.where(rises(line.values), "triangle-up-open", "circle").tolist()]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": line.name,
                "x": figures.packed(np.arange(len(line.values))),
                "y": figures.packed(line.values),
                "line": {"color": line.color, "width": 2},
                "marker": {"size": 9, "symbol": symbols},
                "error_y": {"array": figures.packed(spread), "color": line.color, "thickness": 1, "width": 3},
                "customdata": figures.packed(spread),
                "hovertemplate": f"{line.name}<br>layer %{{x}}<br>"
                "mean u = %{y:.4f}, standard deviation over samples %{customdata:.4f}<extra></extra>",
            }
        )
    depth = max((len(line.values) for line in lines), default=1)
    marks = figures.middle_block(depth, FULL, along="x")
    if threshold is not None:
        style = {"color": FULL, "width": 1, "dash": "dot"}
        where = {"x0": 0, "x1": 1, "xref": "x domain", "y0": threshold, "y1": threshold}
        marks["shapes"].append({"type": "line", **where, "line": style})
        marks["annotations"].append(
            {
                "x": 0,
                "xref": "x domain",
                "y": threshold,
                "text": f"τ = {threshold:.3f}",
                "showarrow": False,
                "xanchor": "left",
                "yanchor": "bottom",
            }
        )
    y = figures.axis("mean u", range=[0, highest * 1.05], showgrid=True)
    return figures.spec(data, figures.axis(DEPTH, range=[-0.5, depth - 0.5], dtick=1), y, showlegend=True, **marks)
