"""Figures of the method: the network with its exits, the diffusion coefficients, u beside the actual error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.colors import sample_colorscale

from app.widgets.figures import FULL, OTHERS, SELECTED, UNCERTAINTY, Spec, axis, middle_block, packed, spec
from deediff.cost.cost import Cost

GREEN, PINK, GOLD, VIOLET = OTHERS  # A and B are colours of traces
BLOCK = "#66717f"  # behind white numbers
STREAM, UEM, HEAD = 0.0, 1.0, 1.75  # heights in the drawing of the network


def network_figure(
    cost: Cost,
    skips: Sequence[int | None],  # (N,) the block whose output block i reads through a long skip
    u: NDArray[np.float32],  # (N,) of one image; empty: without exits
    highest: float,  # upper end of the colour scale of u
    exit_layer: int | None,  # of this image; None: not known
    chosen: int | None,  # the selected layer
) -> Spec:
    """Blocks along a line; before each of them a UEM (circle, coloured by its u) and an output head (triangle)."""
    n = len(cost.blocks)
    data = [_line([-0.9, n + 0.9], [STREAM, STREAM], FULL, 3)]
    if len(u):
        data += [_line([i, i], [STREAM, HEAD], FULL, 1) for i in range(n)]
        if exit_layer is not None:
            end = (n + 0.9, STREAM) if exit_layer == n else (exit_layer, HEAD + 0.4)
            data.append(_line([-0.9, min(exit_layer, end[0]), end[0]], [STREAM, STREAM, end[1]], GREEN, 5))
        data.append(_uems(cost, u, highest))
        data.append(_heads(cost, n))
    last = n if exit_layer is None else exit_layer
    data += [_blocks(cost, skips, range(last), True), _blocks(cost, skips, range(last, n), False)]
    data.append(_decoder(cost, n))
    shapes: list[dict[str, Any]] = [_arc(source, i) for i, source in enumerate(skips) if source is not None]
    if chosen is not None and len(u):
        shapes.append(
            {
                "type": "rect",
                "x0": chosen - 0.22,
                "x1": chosen + 0.22,
                "y0": 0.62,
                "y1": HEAD + 0.28,
                "name": SELECTED,
                "line": {"color": FULL, "width": 2, "dash": "dot"},
            }
        )
    words = [_text(-0.95, STREAM, "x<sub>t</sub>, t", "right"), _text(n + 0.95, STREAM, "out", "left")]
    if exit_layer is not None:
        where = f"exit at layer {exit_layer}" if exit_layer < n else "no early exit"
        words.append(_text(min(exit_layer, n - 1), HEAD + 0.62, where, "center"))
    hidden = {"visible": False, "fixedrange": True}
    x, y = {**hidden, "range": [-1.7, n + 1.5]}, {**hidden, "range": [-1.9, HEAD + 1.0]}
    margin = {"l": 4, "r": 4, "t": 4, "b": 4}
    return spec(data, x, y, height=330, margin=margin, showlegend=False, shapes=shapes, annotations=words)


def _line(x: list[float], y: list[float], color: str, width: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": color, "width": width},
        "hoverinfo": "skip",
    }


def _marks(x: Sequence[float], height: float, marker: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Points; a click reads the layer from `customdata[0]`."""
    return {"type": "scatter", "x": list(x), "y": [height] * len(x), "mode": "markers", "marker": marker, **options}


def _uems(cost: Cost, u: NDArray[np.float32], highest: float) -> dict[str, Any]:
    n = len(cost.blocks)
    marker = {
        "size": 21,
        "color": packed(u),
        "colorscale": UNCERTAINTY,
        "cmin": 0,
        "cmax": highest,
        "line": {"color": FULL, "width": 1.5},
        "colorbar": {"title": {"text": "u", "side": "right"}, "thickness": 10, "len": 0.9},
    }
    return _marks(
        range(n),
        UEM,
        marker,
        customdata=[[i, cost.uems[i] if cost.uems else 0.0] for i in range(n)],
        hovertemplate="UEM %{customdata[0]}: u = %{marker.color:.4f}<br>reads the input of block %{customdata[0]}"
        "<br>%{customdata[1]:.3g} GFLOPs<extra></extra>",
    )


def _heads(cost: Cost, n: int) -> dict[str, Any]:
    exits = cost.at_exit(with_uem=True)
    return _marks(
        range(n),
        HEAD,
        {"symbol": "triangle-up", "size": 17, "color": FULL},
        customdata=[[i, float(exits[i]), float(100 * exits[i] / cost.full)] for i in range(n)],
        hovertemplate="exit %{customdata[0]}: %{customdata[0]} blocks were run<br>%{customdata[1]:.4g} GFLOPs in all, "
        "%{customdata[2]:.1f} % of the full network<extra></extra>",
    )


def _decoder(cost: Cost, n: int) -> dict[str, Any]:
    data = [[n, float(cost.at_exit(with_uem=bool(cost.uems))[-1])]]
    return _marks(
        [n + 0.55],
        STREAM,
        {"symbol": "triangle-right", "size": 20, "color": FULL},
        customdata=data,
        hovertemplate="exit %{customdata[0]}: no early exit<br>%{customdata[1]:.4g} GFLOPs in all<extra></extra>",
    )


def _blocks(cost: Cost, skips: Sequence[int | None], which: range, run: bool) -> dict[str, Any]:
    """Filled where they are run for this image, else hollow."""
    also = ["" if s is None else f"<br>also reads block {s} through a long skip" for s in skips]
    marker = {"symbol": "square" if run else "square-open", "size": 26, "color": BLOCK, "line": {"width": 1}}
    return {
        **_marks([i + 0.5 for i in which], STREAM, marker),
        "mode": "markers+text",
        "text": [str(i) for i in which],
        "textfont": {"color": "white", "size": 13} if run else {"size": 13},
        "customdata": [[i, cost.blocks[i], also[i], "" if run else "<br>not run for this image"] for i in which],
        "hovertemplate": "block %{customdata[0]}: %{customdata[1]:.4g} GFLOPs%{customdata[2]}"
        "%{customdata[3]}<extra></extra>",
    }


def _arc(source: int, block: int) -> dict[str, Any]:
    """A long skip, below the blocks."""
    left, right = source + 0.5, block + 0.5
    depth = -0.5 - 0.14 * (right - left)
    path = f"M {left},-0.35 C {left},{depth} {right},{depth} {right},-0.35"
    return {"type": "path", "path": path, "line": {"color": FULL, "width": 1}, "opacity": 0.7}


def _text(x: float, y: float, text: str, anchor: str) -> dict[str, Any]:
    return {"x": x, "y": y, "text": text, "showarrow": False, "xanchor": anchor, "font": {"size": 13}}


def coefficients(alphas_bar: NDArray[np.float64], timestep: int) -> Spec:
    """Figure 7: the coefficients of image and noise in x_t, over all T timesteps."""
    t = np.arange(len(alphas_bar))
    image, noise = np.sqrt(alphas_bar), np.sqrt(1 - alphas_bar)
    lines = [("image, √ᾱ<sub>t</sub>", image, VIOLET), ("noise, √(1−ᾱ<sub>t</sub>)", noise, GOLD)]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": packed(t),
            "y": packed(values),
            "line": {"color": color, "width": 2},
            "hovertemplate": "timestep %{x}: %{y:.4f}<extra>" + name + "</extra>",
        }
        for name, values, color in lines
    ]
    here = {
        "type": "line",
        "x0": timestep,
        "x1": timestep,
        "y0": 0,
        "y1": 1,
        "yref": "y domain",
        "name": SELECTED,
        "line": {"color": FULL, "width": 1, "dash": "dot"},
    }
    x = axis("timestep t  (sampling runs from left to right)", range=[len(t) - 0.5, -0.5])
    return spec(data, x, axis("coefficient", range=[0, 1.03]), height=280, showlegend=True, shapes=[here])


def u_and_error(u: NDArray[np.float32], errors: NDArray[np.float32], threshold: float | None, chosen: int) -> Spec:
    """Per exit: u (N,) (Eq. 5), and the error (N+1,) that it was trained to predict (Eq. 6)."""
    n = len(u)
    lines = [("u, predicted by the UEM", u, GREEN, "solid"), ("û, the head's actual error", errors, PINK, "dot")]
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": list(range(len(values))),
            "y": packed(values),
            "customdata": [[i] for i in range(len(values))],
            "line": {"color": color, "width": 2, "dash": dash},
            "marker": {"size": 8, "color": color},
            "hovertemplate": "exit %{x}: %{y:.4f}<extra>" + name + "</extra>",
        }
        for name, values, color, dash in lines
    ]
    layout = middle_block(n, FULL, "x")
    here = {"type": "rect", "x0": chosen - 0.3, "x1": chosen + 0.3, "y0": 0, "y1": 1, "yref": "y domain"}
    layout["shapes"].append({**here, "name": SELECTED, "line": {"color": FULL, "width": 1.5, "dash": "dot"}})
    if threshold is not None:
        line = {"color": FULL, "width": 1, "dash": "dot"}
        level = {"type": "line", "x0": 0, "x1": 1, "xref": "x domain", "y0": threshold, "y1": threshold, "line": line}
        text = {"x": 0, "xref": "x domain", "xanchor": "left", "y": threshold, "yanchor": "bottom", "showarrow": False}
        layout["shapes"].append(level)
        layout["annotations"].append({**text, "text": f"τ = {threshold:.3f}"})
    x = axis("exit layer  (blocks run before)", range=[-0.6, n + 0.6], dtick=1)
    return spec(data, x, axis("u, û", rangemode="tozero"), height=310, showlegend=True, **layout)


def heat(values: NDArray[np.float32], highest: float) -> NDArray[np.uint8]:
    """(h,w) numbers from 0 to `highest` → (3,h,w) colours on the scale of uncertainty."""
    scale = np.asarray(sample_colorscale(UNCERTAINTY, list(np.linspace(0, 1, 256)), colortype="tuple"))
    place = (values / highest).clip(0, 1) * 255
    return (scale[place.round().astype(int)] * 255).round().astype(np.uint8).transpose(2, 0, 1)
