"""The heatmap of exits over depth and time, with lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import PROBABILITY, Line, Mark, Spec

Ints = NDArray[np.int64]


def exit_heatmap(exits: Ints, timesteps: list[int], lines: Sequence[Line] = (), mark: Mark | None = None) -> Spec:
    """P(exit at layer | timestep) from counts (S, N+1), with its mean exit layer and those of others as lines."""
    steps, layers = exits.shape
    samples = exits.sum(axis=1)
    probability = exits / samples[:, None]
    numbers = np.arange(steps)
    detail = np.stack([exits.T, np.repeat(numbers[None], layers, 0)], axis=-1)  # (N+1, S, 2)
    heatmap = {
        "type": "heatmap",
        "x": figures.packed(np.asarray(timesteps)),
        "z": figures.packed(probability.T),
        "zmin": 0,
        "zmax": 1,
        "colorscale": PROBABILITY,
        "customdata": figures.packed(detail),
        "colorbar": {"title": {"text": "P(exit)", "side": "right"}, "thickness": 12, "tickformat": ".1f"},
        "hovertemplate": "timestep %{x} (step %{customdata[1]})<br>exit layer %{y}<br>"
        f"P = %{{z:.4f}} (%{{customdata[0]}} of {int(samples[0]):,} samples)<extra></extra>",
    }
    static = Line("most frequent layer", exits.argmax(axis=1), "white", estimated=True)
    mean = Line("mean exit layer", probability @ np.arange(layers), "white")
    data = [heatmap, *(part for line in [static, *lines, mean] for part in _over_picture(line, timesteps))]
    middle = figures.middle_block(layers - 1, "white")
    middle["shapes"] += figures.crosshair(mark or Mark(), timesteps)
    depth = figures.depth_axis(layers - 1, f"exit layer  ({layers - 1} = no early exit)")
    figure = figures.spec(data, figures.time_axis(timesteps), depth, showlegend=True, **middle)
    figure["layout"]["legend"] |= {"bgcolor": "#2b3447", "font": {"color": "white"}}  # behind white lines
    return figure


def _over_picture(line: Line, timesteps: list[int]) -> list[figures.Trace]:
    """A line with a contrasting edge, visible on dark and bright cells."""
    x, y = figures.packed(np.asarray(timesteps)), figures.packed(line.values)
    edge = {"color": "white" if line.color != "white" else "black", "width": 5}
    common = {"type": "scatter", "x": x, "y": y, "mode": "lines", "hoverinfo": "skip"}
    dash = ("dot" if line.color == "white" else "dash") if line.estimated else "solid"
    return [
        {**common, "line": edge, "opacity": 0.5, "showlegend": False},
        {**common, "line": {"color": line.color, "width": 2, "dash": dash}, "name": line.name},
    ]
