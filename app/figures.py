"""Tables in, Plotly figures out.

In every picture time runs in the direction of sampling (t = T−1 at the left) and depth grows upward.
Scales are perceptually uniform, fit for colour-blind readers and fixed, so that panels can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import sample_colorscale

A, B, FULL = "#0072B2", "#D55E00", "#8a8f98"  # Okabe–Ito blue and vermillion; the full network is neutral grey
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # further measured traces
PROBABILITY, UNCERTAINTY = "Cividis", "Viridis"
HEIGHT = 460


@dataclass(frozen=True)
class Line:
    """One curve over time or depth."""

    name: str
    values: NDArray[Any]
    color: str
    estimated: bool = False  # dashed when it is an open-loop estimate
    spread: NDArray[Any] | None = None  # ± around the values


def _layout(figure: go.Figure, **layout: Any) -> go.Figure:
    figure.update_layout(
        height=HEIGHT, margin=dict(l=8, r=8, t=30, b=8), hovermode="closest",
        legend=dict(orientation="h", y=1.01, yanchor="bottom", x=0, xanchor="left"), **layout,
    )  # fmt: skip
    return figure


def _time_axis(figure: go.Figure, timesteps: list[int]) -> None:
    edge = (timesteps[0] - timesteps[-1]) / max(1, len(timesteps) - 1) / 2 or 0.5
    ticks = sorted({timesteps[i] for i in np.linspace(0, len(timesteps) - 1, 6).round().astype(int)})
    figure.update_xaxes(
        title="timestep t  (sampling runs from left to right)", tickvals=ticks,
        range=[timesteps[0] + edge, timesteps[-1] - edge], showgrid=False, zeroline=False,
    )  # fmt: skip


def _depth_axis(figure: go.Figure, last: int, title: str) -> None:
    figure.update_yaxes(
        title=title, range=[-0.5, last + 0.5], dtick=max(1, round(last / 13)), showgrid=False, zeroline=False
    )


def _mark_middle(figure: go.Figure, num_blocks: int, color: str, axis: str = "y") -> None:
    """Between the exits before and after the middle block, where the long skips begin."""
    where = num_blocks // 2 + 0.5
    style: dict[str, Any] = dict(
        line=dict(color=color, width=1, dash="dash"), opacity=0.8,
        annotation=dict(text="middle block", font=dict(color=color, size=11), showarrow=False),
    )  # fmt: skip
    if axis == "y":
        figure.add_hline(y=where, annotation_position="top left", **style)
    else:
        figure.add_vline(x=where, annotation_position="top left", **style)


def exit_heatmap(exits: NDArray[np.int64], timesteps: list[int]) -> go.Figure:
    """P(exit at layer | timestep) from counts (S, N+1), and the mean exit layer as a line."""
    steps, layers = exits.shape
    samples = exits.sum(axis=1)
    probability = exits / samples[:, None]
    numbers = np.arange(steps)
    detail = np.stack([np.repeat(numbers[None], layers, 0), exits.T], axis=-1)  # (N+1, S, 2)
    figure = go.Figure(
        go.Heatmap(
            x=timesteps, y=np.arange(layers), z=probability.T, customdata=detail,
            zmin=0, zmax=1, colorscale=PROBABILITY,
            colorbar=dict(title=dict(text="P(exit)", side="right"), thickness=12, tickformat=".1f"),
            hovertemplate="timestep %{x} (step %{customdata[0]})<br>exit layer %{y}<br>"
            f"P = %{{z:.4f}} (%{{customdata[1]}} of {int(samples[0])} samples)<extra></extra>",
        )
    )  # fmt: skip
    mean = probability @ np.arange(layers)
    outline = dict(color="black", width=5)
    figure.add_scatter(x=timesteps, y=mean, mode="lines", line=outline, opacity=0.5, hoverinfo="skip")
    figure.add_scatter(
        x=timesteps, y=mean, customdata=numbers, mode="lines", line=dict(color="white", width=2),
        hovertemplate="timestep %{x} (step %{customdata})<br>mean exit layer %{y:.2f}<extra></extra>",
    )  # fmt: skip
    _time_axis(figure, timesteps)
    _depth_axis(figure, layers - 1, f"exit layer  ({layers - 1} = no early exit)")
    _mark_middle(figure, layers - 1, "white")
    return _layout(figure, showlegend=False)


def mean_exit_lines(lines: list[Line], timesteps: list[int], num_blocks: int) -> go.Figure:
    """Mean exit layer per timestep, one line per estimate or measurement."""
    figure = go.Figure()
    for line in lines:
        figure.add_scatter(
            x=timesteps, y=line.values, customdata=np.arange(len(timesteps)), mode="lines", name=line.name,
            line=dict(color=line.color, width=3 if line.estimated else 2, dash="dot" if line.estimated else "solid"),
            hovertemplate=f"{line.name}<br>timestep %{{x}} (step %{{customdata}})<br>"
            "mean exit layer %{y:.3f}<extra></extra>",
        )  # fmt: skip
    _time_axis(figure, timesteps)
    _depth_axis(figure, num_blocks, "mean exit layer")
    figure.update_yaxes(range=[-0.3, num_blocks + 0.4])
    _mark_middle(figure, num_blocks, FULL)
    return _layout(figure, showlegend=True)


def uncertainty_heatmap(
    mean: NDArray[np.float64],  # (S, N), NaN where no sample arrived
    counts: NDArray[np.int64],  # (S, N) samples behind each mean
    timesteps: list[int],
    highest: float,  # upper end of the colour scale, the same for everything on screen
) -> go.Figure:
    """Mean u per layer and timestep."""
    steps, layers = mean.shape
    detail = np.stack([np.repeat(np.arange(steps)[None], layers, 0), counts.T], axis=-1)
    figure = go.Figure(
        go.Heatmap(
            x=timesteps, y=np.arange(layers), z=mean.T, customdata=detail, zmin=0, zmax=highest, colorscale=UNCERTAINTY,
            colorbar=dict(title=dict(text="mean u", side="right"), thickness=12), hoverongaps=False,
            hovertemplate="timestep %{x} (step %{customdata[0]})<br>layer %{y}<br>"
            "mean u = %{z:.4f} (%{customdata[1]} samples)<extra></extra>",
        )
    )  # fmt: skip
    _time_axis(figure, timesteps)
    _depth_axis(figure, layers - 1, "layer  (blocks run before the UEM)")
    _mark_middle(figure, layers, "white")
    return _layout(figure)


def uncertainty_curves(lines: list[Line], threshold: float | None, highest: float) -> go.Figure:
    """Mean u over depth at one timestep, with one standard deviation over samples."""
    figure = go.Figure()
    for line in lines:
        layers = np.arange(len(line.values))
        spread = np.zeros(len(line.values)) if line.spread is None else line.spread
        figure.add_scatter(
            x=layers, y=line.values, name=line.name, mode="lines+markers", line=dict(color=line.color, width=2),
            error_y=dict(array=spread, color=line.color, thickness=1, width=3), customdata=spread,
            hovertemplate=f"{line.name}<br>layer %{{x}}<br>"
            "mean u = %{y:.4f}, standard deviation over samples %{customdata:.4f}<extra></extra>",
        )  # fmt: skip
    if threshold is not None:
        figure.add_hline(
            y=threshold, line=dict(color=FULL, width=1, dash="dot"),
            annotation=dict(text=f"τ = {threshold:.3f}", font=dict(color=FULL)), annotation_position="top left",
        )  # fmt: skip
    depth = max((len(line.values) for line in lines), default=1)
    figure.update_xaxes(title="layer  (blocks run before the UEM)", range=[-0.5, depth - 0.5], dtick=1, showgrid=False)
    figure.update_yaxes(title="mean u", range=[0, highest * 1.05], zeroline=False)
    _mark_middle(figure, depth, FULL, axis="x")
    return _layout(figure, showlegend=True)


def exit_trajectories(exit_layers: NDArray[np.int8], timesteps: list[int], num_blocks: int) -> go.Figure:
    """Exit layer of each image at each step: (B, S), NaN-free, steps still to come are left out."""
    samples, done = exit_layers.shape
    figure = go.Figure(
        go.Heatmap(
            x=timesteps[:done], y=[f"image {k}" for k in range(samples)], z=exit_layers, zmin=0, zmax=num_blocks,
            colorscale=PROBABILITY, customdata=np.repeat(np.arange(done)[None], samples, 0), ygap=2,
            colorbar=dict(title=dict(text="exit layer", side="right"), thickness=12),
            hovertemplate="%{y}<br>timestep %{x} (step %{customdata})<br>exit layer %{z}<extra></extra>",
        )
    )  # fmt: skip
    _time_axis(figure, timesteps)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return _layout(figure).update_layout(height=110 + 18 * samples)


def layer_colors(exit_layers: NDArray[np.int8], num_blocks: int) -> NDArray[np.uint8]:
    """(S,) exit layers → (S, 3) RGB on the same scale as the heatmaps, for strips under images."""
    scale = sample_colorscale(PROBABILITY, list(np.linspace(0, 1, num_blocks + 1)), colortype="tuple")
    palette = (np.asarray(scale) * 255).round().astype(np.uint8)  # (N+1, 3)
    return palette[exit_layers]
