"""Lines over time: mean exit layers, their spread, and the error of the open-loop estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.widgets import figures
from app.widgets.figures import FULL, Line, Mark, Spec

Floats = NDArray[Any]


def mean_exit_lines(lines: list[Line], timesteps: list[int], num_blocks: int, mark: Mark | None = None) -> Spec:
    """Mean exit layer per timestep, one line per estimate or measurement."""
    data = [_line(line, timesteps, "mean exit layer") for line in lines]
    middle = figures.middle_block(num_blocks, FULL)
    middle["shapes"] += now(mark)
    return figures.spec(
        data, figures.time_axis(timesteps), _depth(num_blocks, "mean exit layer"), showlegend=True, **middle
    )


def spread_over_samples(
    bands: list[tuple[str, Floats, Floats]],  # name, lower and upper exit layer (S,), the widest band first
    middle: Floats,  # (S,) median
    timesteps: list[int],
    num_blocks: int,
    color: str,
    mark: Mark | None = None,
) -> Spec:
    """Bands of exit layers around their median."""
    x = figures.packed(np.asarray(timesteps))
    data: list[figures.Trace] = []
    for name, low, high in bands:
        edge = {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "line": {"color": color, "width": 1, "shape": "hvh"},
            "hoverinfo": "skip",
        }
        data.append({**edge, "y": figures.packed(low), "showlegend": False})
        data.append({**edge, "y": figures.packed(high), "name": name, "fill": "tonexty", "fillcolor": faded(color)})
    detail = np.stack([np.arange(len(timesteps)), *(edge for _, low, high in bands for edge in (low, high))], axis=-1)
    named = [(2 * k + 1, name) for k, (name, *_) in enumerate(bands)]
    lines = [f"{name}: %{{customdata[{k}]}} – %{{customdata[{k + 1}]}}" for k, name in named]
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": figures.packed(middle),
            "name": "median",
            "line": {"color": color, "width": 2, "shape": "hvh"},
            "customdata": figures.packed(detail),
            "hovertemplate": "timestep %{x} (step %{customdata[0]})<br>median exit layer %{y}<br>"
            + "<br>".join(lines)
            + "<extra></extra>",
        }
    )
    marks = figures.middle_block(num_blocks, FULL)
    marks["shapes"] += now(mark)
    return figures.spec(data, figures.time_axis(timesteps), _depth(num_blocks, "exit layer"), showlegend=True, **marks)


def gap(estimated: Line, measured: Line, timesteps: list[int], num_blocks: int, mark: Mark | None = None) -> Spec:
    """Above: an open-loop estimate beside the measurement. Below: their difference, centred on 0."""
    difference = estimated.values - measured.values
    bound = max(1.0, float(np.ceil(np.abs(difference).max())))
    bars = {
        "type": "bar",
        "x": figures.packed(np.asarray(timesteps)),
        "y": figures.packed(difference),
        "yaxis": "y2",
        "name": "estimated − measured",
        "showlegend": False,
        "width": _bar_width(timesteps),
        "marker": {
            "color": figures.packed(difference),
            "colorscale": figures.DIFFERENCE,
            "cmin": -bound,
            "cmax": bound,
            "line": {"color": FULL, "width": 1},  # bars near 0 are as pale as the page
        },
        "customdata": figures.packed(np.arange(len(timesteps))),
        "hovertemplate": "timestep %{x} (step %{customdata})<br>estimated − measured %{y:+.3f} layers<extra></extra>",
    }
    data = [*(_line(line, timesteps, "mean exit layer") for line in (measured, estimated)), bars]
    upper = {**_depth(num_blocks, "mean exit layer"), "domain": [0.36, 1]}
    lower = figures.axis("difference", range=[-bound * 1.1, bound * 1.1], domain=[0, 0.28], zeroline=True)
    marks = figures.middle_block(num_blocks, FULL)
    marks["shapes"] += now(mark)
    return figures.spec(data, figures.time_axis(timesteps, anchor="y2"), upper, yaxis2=lower, showlegend=True, **marks)


def now(mark: Mark | None) -> list[dict[str, Any]]:
    """The selected timestep, as a shape."""
    if mark is None or mark.timestep is None:
        return []
    x, line = mark.timestep, {"color": FULL, "width": 1}
    ends = {"x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"}
    return [{"type": "line", "name": figures.SELECTED, **ends, "line": line}]


def faded(color: str) -> str:
    """#rrggbb, nearly transparent."""
    return f"rgba({int(color[1:3], 16)},{int(color[3:5], 16)},{int(color[5:7], 16)},0.22)"


def _line(line: Line, timesteps: list[int], what: str) -> figures.Trace:
    dash = "dash" if line.estimated else "solid"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": line.name,
        "x": figures.packed(np.asarray(timesteps)),
        "y": figures.packed(line.values),
        "customdata": figures.packed(np.arange(len(timesteps))),
        "line": {"color": line.color, "width": 2.5 if line.estimated else 2, "dash": dash},
        "hovertemplate": f"{line.name}<br>timestep %{{x}} (step %{{customdata}})<br>{what} %{{y:.3f}}<extra></extra>",
    }


def _depth(num_blocks: int, title: str) -> dict[str, Any]:
    return figures.axis(title, range=[-0.3, num_blocks + 0.4], dtick=max(1, round(num_blocks / 13)))


def _bar_width(timesteps: list[int]) -> float:
    return abs(timesteps[0] - timesteps[-1]) / max(1, len(timesteps) - 1) or 1
