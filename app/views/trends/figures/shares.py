"""Shares of a variance with their intervals, as bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.widgets import figures
from app.widgets.figures import Spec


@dataclass(frozen=True)
class Bars:
    """One group of bars: a value and its interval for each label."""

    name: str
    values: list[float]
    low: list[float]
    high: list[float]
    color: str


def variance_shares(labels: list[str], groups: list[Bars]) -> Spec:
    """Horizontal bars, the first label on top."""
    data = []
    for group in groups:
        values = np.asarray(group.values)
        up, down = np.asarray(group.high) - values, values - np.asarray(group.low)
        detail = np.stack([np.asarray(group.low), np.asarray(group.high)], axis=-1)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": group.name,
                "y": labels,
                "x": figures.packed(values),
                "marker": {"color": group.color},
                "customdata": figures.packed(detail),
                "error_x": {
                    "array": figures.packed(up),
                    "arrayminus": figures.packed(down),
                    "symmetric": False,
                    "thickness": 1.5,
                    "width": 4,
                    "color": figures.FULL,
                },
                "hovertemplate": f"{group.name}<br>%{{y}}: %{{x:.3f}} "
                "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
            }
        )
    rows = {"autorange": "reversed", "automargin": True, "showgrid": False}
    x = figures.axis("share of the variance, with 95 % intervals", range=[0, 1.03], showgrid=True)
    return figures.spec(data, x, rows, height=300, showlegend=len(groups) > 1, barmode="group")
