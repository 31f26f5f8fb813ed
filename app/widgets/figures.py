"""Plotly figures as plain JSON: shared colours, axes and marks.

In every figure time runs in the direction of sampling (t = T−1 at the left) and depth grows upward.
Colour scales are perceptually uniform, colour-blind-safe and fixed, so that panels can be compared.

Plain dictionaries, because `go.Figure` validates every attribute: 60 ms for a heatmap, the budget of a whole slider
update. The tests validate them instead.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Spec = dict[str, Any]  # {"data": traces, "layout": …} as plotly.js takes it
Trace = dict[str, Any]  # one of its traces, which are unrelated to those of sampling jobs

# Colours of lines and marks contrast by at least 3 : 1 with the background of both themes (WCAG 2.2, 1.4.11).
# Text on a figure has the theme's text colour, or is white on SHADE: no colour contrasts by 4.5 : 1 with both.
A, B, FULL = "#0072B2", "#D55E00", "#8a8f98"  # Okabe–Ito blue and vermillion; the full network is neutral grey
OTHERS = ("#009E73", "#CC79A7", "#B07D00", "#A65FD0")  # further measured traces
MORE = ("#A0673C", "#0F9AA8", "#7C8A1F", "#D14D7E")  # where OTHERS are too few
ORDERED = ("#9b51d6", "#cc4778", "#c8862a")  # from violet to gold as in Plasma, for ordered lines
CHOSEN = "#d81b60"  # a ring around a chosen mark
PROBABILITY, UNCERTAINTY = "Cividis", "Viridis"
DIFFERENCE = [
    [k / 6, color]
    for k, color in enumerate(  # ColorBrewer's PuOr, around 0
        ("#542788", "#998ec3", "#d8daeb", "#c8c8c8", "#fee0b6", "#f1a340", "#b35806")
    )
]
SHADE = "rgba(20,25,40,0.72)"  # behind white on cells
HEIGHT = 460
SELECTED = "selected"  # name of shapes that mark the selection: they are on screen, not in saved figures


@dataclass(frozen=True)
class Line:
    """One curve over time or depth."""

    name: str
    values: NDArray[Any]
    color: str
    estimated: bool = False  # dashed when it is an open-loop estimate
    spread: NDArray[Any] | None = None  # ± around the values


@dataclass(frozen=True)
class Mark:
    """The selected timestep and layer, marked in a figure."""

    timestep: int | None = None
    layer: int | None = None


def ordered_colors(count: int) -> list[str]:
    """`count` colours along ORDERED, both ends included."""
    ends = np.array([[int(color[k : k + 2], 16) for k in (1, 3, 5)] for color in ORDERED])
    where = np.linspace(0, len(ends) - 1, count)
    mixed = [np.interp(where, np.arange(len(ends)), channel).round().astype(int) for channel in ends.T]
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in zip(*mixed, strict=True)]


def packed(values: NDArray[Any]) -> dict[str, str]:
    """An array in the binary format of plotly.js; float64 becomes float32."""
    smallest = {"f": np.float32, "i": np.int32, "u": np.int32, "b": np.int8}[values.dtype.kind]
    array = np.ascontiguousarray(values, dtype=smallest)
    names = {np.float32: "f4", np.int32: "i4", np.int8: "i1"}
    packed = {"dtype": names[smallest], "bdata": base64.b64encode(array.tobytes()).decode("ascii")}
    return packed if array.ndim == 1 else {**packed, "shape": ",".join(map(str, array.shape))}


def spec(data: list[Trace], x: dict[str, Any], y: dict[str, Any], height: int = HEIGHT, **layout: Any) -> Spec:
    """A figure with the common margins and legend, unless `layout` overrides them. A curve of one point is a mark."""
    legend = {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0, "xanchor": "left"}
    margin = {"l": 8, "r": 8, "t": 36, "b": 8}  # top: a legend of one row (29) and its gap, or the mode bar
    common = {"height": height, "margin": margin, "hovermode": "closest", "legend": legend, "showlegend": False}
    data = [_visible(trace) for trace in data]
    return {"data": data, "layout": {**common, "dragmode": "zoom", "xaxis": x, "yaxis": y, **layout}}


def _visible(trace: Trace) -> Trace:
    """Plotly draws nothing of a line of one point."""
    values = trace.get("y")
    if trace.get("mode") != "lines" or values is None:
        return trace
    count = (
        _length(values["bdata"], values["dtype"]) if isinstance(values, dict) else sum(v is not None for v in values)
    )
    return (
        trace if count != 1 else {**trace, "mode": "markers", "marker": {"color": trace.get("line", {}).get("color")}}
    )


def _length(bdata: str, dtype: str) -> int:
    """Of a packed array."""
    return len(base64.b64decode(bdata)) // np.dtype(dtype).itemsize


def axis(title: str, **options: Any) -> dict[str, Any]:
    """An axis without a grid."""
    return {"title": {"text": title}, "showgrid": False, "zeroline": False, "automargin": True, **options}


def time_axis(timesteps: Sequence[int], **options: Any) -> dict[str, Any]:
    """t from T−1 at the left to 0 at the right."""
    edge = (timesteps[0] - timesteps[-1]) / max(1, len(timesteps) - 1) / 2 or 0.5
    ticks = sorted({timesteps[i] for i in np.linspace(0, len(timesteps) - 1, 6).round().astype(int)})
    span = [timesteps[0] + edge, timesteps[-1] - edge]
    return axis("timestep t  (sampling runs from left to right)", tickvals=ticks, range=span, **options)


def depth_axis(last: int, title: str, **options: Any) -> dict[str, Any]:
    """Layers 0 … last."""
    return axis(title, range=[-0.5, last + 0.5], dtick=max(1, round(last / 13)), **options)


def middle_block(num_blocks: int, color: str, along: str = "y") -> dict[str, Any]:
    """A dashed line between the exits before and after the middle block, where the long skips begin."""
    where, other = num_blocks // 2 + 0.5, "x" if along == "y" else "y"
    line = {"type": "line", along + "0": where, along + "1": where, other + "0": 0, other + "1": 1}
    style = {f"{other}ref": f"{other} domain", "opacity": 0.8}
    shapes = [{**line, **style, "line": {"color": color, "width": 1, "dash": "dash"}}]
    on_cells = color == "white"  # empty cells are as white as a light page
    if on_cells:
        shapes.insert(0, {**line, **style, "line": {"color": SHADE, "width": 3}})
    place = {"xanchor": "left", "yanchor": "bottom"} if along == "y" else {"xanchor": "right", "yanchor": "top"}
    text = {
        along: where,
        other: 0 if along == "y" else 1,
        f"{other}ref": f"{other} domain",
        "text": "middle block",
        "font": {"color": "white", "size": 11} if on_cells else {"size": 11},
        "showarrow": False,
        **({"bgcolor": SHADE} if on_cells else {}),
        **place,
    }
    return {"shapes": shapes, "annotations": [text]}


def crosshair(mark: Mark, timesteps: Sequence[int]) -> list[dict[str, Any]]:
    """Shapes around the selected column of a heatmap, and around its cell when a layer is selected, too."""
    if mark.timestep is None or mark.timestep not in timesteps:
        return []
    half = abs(timesteps[0] - timesteps[-1]) / max(1, len(timesteps) - 1) / 2 or 0.5
    column = {"type": "rect", "x0": mark.timestep - half, "x1": mark.timestep + half}
    whole = {**column, "y0": 0, "y1": 1, "yref": "y domain"}
    boxes = [(whole, 1)]
    if mark.layer is not None:
        boxes.append(({**column, "y0": mark.layer - 0.5, "y1": mark.layer + 0.5}, 2))
    return [
        {**box, "name": SELECTED, "line": {"color": color, "width": wide + extra}}
        for box, wide in boxes
        for color, extra in (("black", 2), ("white", 0))
    ]


def layer_colors(exit_layers: NDArray[np.int8], num_blocks: int) -> NDArray[np.uint8]:
    """(S,) exit layers → (S, 3) RGB on the scale of the heatmaps, for strips under images."""
    from plotly.colors import sample_colorscale

    scale = sample_colorscale(PROBABILITY, list(np.linspace(0, 1, num_blocks + 1)), colortype="tuple")
    palette = (np.asarray(scale) * 255).round().astype(np.uint8)  # (N+1, 3)
    return palette[exit_layers]
