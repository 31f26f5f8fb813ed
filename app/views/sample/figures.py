"""Figure of one sample's path."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import UNCERTAINTY, A, Mark, Spec


def path_figure(
    exit_layers: NDArray[np.int8],  # (S,)
    uncertainty: NDArray[np.float32] | None,  # (S, N), NaN where no UEM was queried
    timesteps: list[int],
    num_blocks: int,
    highest: float,  # upper end of the colour scale of u
    mark: Mark | None = None,
) -> Spec:
    """Exit layer at each step, over the u of its UEMs."""
    steps = np.arange(len(timesteps))
    u = np.full((len(steps), num_blocks), np.nan) if uncertainty is None else uncertainty.astype(np.float64)
    known = np.append(u, np.full((len(steps), 1), np.nan), axis=1)  # (S, N+1): no UEM at layer N
    detail = np.stack(np.broadcast_arrays(exit_layers[None], steps[None], known.T)[:2], axis=-1)  # (N+1, S, 2)
    heatmap = {
        "type": "heatmap",
        "x": figures.packed(np.asarray(timesteps)),
        "z": figures.packed(known.T),
        "zmin": 0,
        "zmax": highest,
        "colorscale": UNCERTAINTY,
        "customdata": figures.packed(detail),
        "hovertemplate": "timestep %{x} (step %{customdata[1]})<br>layer %{y}: u = %{z:.4f}<br>"
        "exit layer %{customdata[0]}<extra></extra>",
        "colorbar": {"title": {"text": "u", "side": "right"}, "thickness": 12},
        "showscale": uncertainty is not None,
    }
    x, y = figures.packed(np.asarray(timesteps)), figures.packed(exit_layers)
    line = {"type": "scatter", "x": x, "y": y, "mode": "lines", "hoverinfo": "skip", "showlegend": False}
    data = [
        heatmap,
        {**line, "line": {"color": "white", "width": 5, "shape": "hvh"}},
        {**line, "line": {"color": A, "width": 2.5, "shape": "hvh"}, "name": "exit layer", "showlegend": True},
    ]
    middle = figures.middle_block(num_blocks, "white")
    middle["shapes"] += figures.crosshair(mark or Mark(), timesteps)
    depth = figures.depth_axis(num_blocks, f"layer  ({num_blocks} = no early exit)")
    return figures.spec(data, figures.time_axis(timesteps), depth, height=380, showlegend=True, **middle)
