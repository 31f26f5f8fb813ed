"""Exit layers of a few images over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import PROBABILITY, Spec


def exit_trajectories(exit_layers: NDArray[np.int8], timesteps: list[int], num_blocks: int) -> Spec:
    """Exit layer of each image at each step: (B, S), steps that are not sampled yet are left out."""
    samples, done = exit_layers.shape
    heatmap = {
        "type": "heatmap",
        "x": timesteps[:done],
        "y": [f"image {k}" for k in range(samples)],
        "z": figures.packed(exit_layers),
        "zmin": 0,
        "zmax": num_blocks,
        "colorscale": PROBABILITY,
        "ygap": 2,
        "customdata": figures.packed(np.repeat(np.arange(done)[None], samples, 0)),
        "colorbar": {"title": {"text": "exit layer", "side": "right"}, "thickness": 12},
        "hovertemplate": "%{y}<br>timestep %{x} (step %{customdata})<br>exit layer %{z}<extra></extra>",
    }
    rows = {"autorange": "reversed", "automargin": True, "showgrid": False}
    return figures.spec([heatmap], figures.time_axis(timesteps), rows, height=110 + 18 * samples)
