"""Where samples leave: heatmaps and lines over time, histograms over depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from figures import plain
from figures.plain import PROBABILITY, Line, Mark, Spec

Ints = NDArray[np.int64]


def exit_heatmap(exits: Ints, timesteps: list[int], lines: Sequence[Line] = (), mark: Mark | None = None) -> Spec:
    """P(exit at layer | timestep) from counts (S, N+1), with its mean exit layer and those of others as lines."""
    steps, layers = exits.shape
    samples = exits.sum(axis=1)
    probability = exits / samples[:, None]
    numbers = np.arange(steps)
    detail = np.stack([exits.T, np.repeat(numbers[None], layers, 0)], axis=-1)  # (N+1, S, 2)
    heatmap = {
        "type": "heatmap", "x": plain.packed(np.asarray(timesteps)), "z": plain.packed(probability.T),
        "zmin": 0, "zmax": 1, "colorscale": PROBABILITY, "customdata": plain.packed(detail),
        "colorbar": {"title": {"text": "P(exit)", "side": "right"}, "thickness": 12, "tickformat": ".1f"},
        "hovertemplate": "timestep %{x} (step %{customdata[1]})<br>exit layer %{y}<br>"
        f"P = %{{z:.4f}} (%{{customdata[0]}} of {int(samples[0]):,} samples)<extra></extra>",
    }  # fmt: skip
    static = Line("most frequent layer", exits.argmax(axis=1), "white", estimated=True)
    mean = Line("mean exit layer", probability @ np.arange(layers), "white")
    data = [heatmap, *(part for line in [static, *lines, mean] for part in _over_picture(line, timesteps))]
    middle = plain.middle_block(layers - 1, "white")
    middle["shapes"] += plain.crosshair(mark or Mark(), timesteps)
    depth = plain.depth_axis(layers - 1, f"exit layer  ({layers - 1} = no early exit)")
    figure = plain.spec(data, plain.time_axis(timesteps), depth, showlegend=True, **middle)
    figure["layout"]["legend"] |= {"bgcolor": "#2b3447", "font": {"color": "white"}}  # behind white lines
    return figure


def _over_picture(line: Line, timesteps: list[int]) -> list[plain.Trace]:
    """A line with a dark edge, to be seen on dark and on bright."""
    x, y = plain.packed(np.asarray(timesteps)), plain.packed(line.values)
    edge = {"color": "white" if line.color != "white" else "black", "width": 5}
    common = {"type": "scatter", "x": x, "y": y, "mode": "lines", "hoverinfo": "skip"}
    dash = "dot" if line.estimated else "solid"
    return [
        {**common, "line": edge, "opacity": 0.5, "showlegend": False},
        {**common, "line": {"color": line.color, "width": 2, "dash": dash}, "name": line.name},
    ]


def layer_colors(exit_layers: NDArray[np.int8], num_blocks: int) -> NDArray[np.uint8]:
    """(S,) exit layers → (S, 3) RGB on the same scale as the heatmaps, for strips under images."""
    from plotly.colors import sample_colorscale

    scale = sample_colorscale(PROBABILITY, list(np.linspace(0, 1, num_blocks + 1)), colortype="tuple")
    palette = (np.asarray(scale) * 255).round().astype(np.uint8)  # (N+1, 3)
    return palette[exit_layers]


def exit_trajectories(exit_layers: NDArray[np.int8], timesteps: list[int], num_blocks: int) -> Spec:
    """Exit layer of each image at each step: (B, S), NaN-free, steps still to come are left out."""
    samples, done = exit_layers.shape
    heatmap = {
        "type": "heatmap", "x": timesteps[:done], "y": [f"image {k}" for k in range(samples)],
        "z": plain.packed(exit_layers), "zmin": 0, "zmax": num_blocks, "colorscale": PROBABILITY, "ygap": 2,
        "customdata": plain.packed(np.repeat(np.arange(done)[None], samples, 0)),
        "colorbar": {"title": {"text": "exit layer", "side": "right"}, "thickness": 12},
        "hovertemplate": "%{y}<br>timestep %{x} (step %{customdata})<br>exit layer %{z}<extra></extra>",
    }  # fmt: skip
    rows = {"autorange": "reversed", "automargin": True, "showgrid": False}
    return plain.spec([heatmap], plain.time_axis(timesteps), rows, height=110 + 18 * samples)
