"""Training curves: one small plot per loss term, one line per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from app.widgets.figures import FULL, OTHERS, A, Spec, axis, packed, spec

COLORS = (A, *OTHERS)
COLUMNS, ROW = 3, 190  # plots side by side; pixels of a row
GAP = 0.07  # between plots, as a share of the width


def training_curves(curves: Mapping[str, pd.DataFrame], terms: Mapping[str, str]) -> Spec:
    """Loss against step on a logarithmic scale; terms: column → its equation. Empty terms are left out."""
    shown = [term for term in terms if any(_has(curve, term) for curve in curves.values())]
    columns, rows = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
    suffixes = ["" if place == 0 else str(place + 1) for place in range(len(shown))]
    data: list[dict[str, Any]] = []
    axes: dict[str, Any] = {}
    titles = []
    for place, (term, suffix) in enumerate(zip(shown, suffixes, strict=True)):
        width, height = (1 - GAP * (columns - 1)) / columns, 1 / rows
        left, top = (place % columns) * (width + GAP), 1 - (place // columns) * height
        plot = top - height * (0.12 if rows > 1 else 0)
        axes[f"xaxis{suffix}"] = axis("step", domain=[left, left + width], anchor=f"y{suffix}", nticks=4, tickangle=0)
        axes[f"yaxis{suffix}"] = axis(
            "",
            domain=[top - 0.72 * height, plot],
            type="log",
            anchor=f"x{suffix}",
            showgrid=True,
            **_ticks([curve[term] for curve in curves.values() if _has(curve, term)]),
        )
        titles.append(
            {
                "text": f"<b>{term.removeprefix('loss_')}</b> ({terms[term]})",
                "showarrow": False,
                "font": {"size": 12},
                "x": left,
                "xref": "paper",
                "xanchor": "left",
                "y": plot,
                "yref": "paper",
                "yanchor": "bottom",
            }
        )
        data += [
            _line(run, curve, term, suffix, i, place == 0)
            for i, (run, curve) in enumerate(curves.items())
            if _has(curve, term)
        ]
    changes = [_change(step, suffix) for suffix in suffixes for step in _stage_changes(list(curves.values()))]
    x, y = axes.pop("xaxis", axis("step")), axes.pop("yaxis", axis("loss"))
    legend = {"orientation": "h", "y": -0.05, "yanchor": "top", "x": 0}
    return spec(
        data,
        x,
        y,
        height=80 + ROW * rows,
        margin={"l": 8, "r": 8, "t": 26, "b": 8},
        legend=legend,
        showlegend=len(curves) > 1,
        annotations=titles,
        shapes=changes,
        **axes,
    )


def _ticks(values: Sequence[pd.Series]) -> dict[str, Any]:
    """Ticks of a logarithmic axis with full labels (Plotly labels 0.02 as 2), at least three of them."""
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    if not 0 < low <= high:
        return {}
    tens = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 6, 8), np.arange(1, 10, 0.2)):
        ticks = [round(digit * 10.0**ten, 12) for ten in tens for digit in digits]
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) >= 3:
            break
    return {"tickvals": inside, "ticktext": [f"{tick:g}" for tick in inside]}


def _has(curve: pd.DataFrame, term: str) -> bool:
    return term in curve and bool(curve[term].notna().any())


def _line(run: str, curve: pd.DataFrame, term: str, suffix: str, i: int, legend: bool) -> dict[str, Any]:
    known = curve[curve[term].notna()]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": run,
        "legendgroup": run,
        "showlegend": legend,
        "x": packed(known["step"].to_numpy(np.int32)),
        "y": packed(known[term].to_numpy(np.float64)),
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "line": {"color": COLORS[i % len(COLORS)], "width": 2},
        "customdata": known["stage"].tolist(),
        "hovertemplate": f"{run}<br>step %{{x}}, stage %{{customdata}}<br>{term} = %{{y:.5g}}<extra></extra>",
    }


def _stage_changes(curves: Sequence[pd.DataFrame]) -> list[int]:
    """The last step of every stage but the last, over all runs."""
    ends: set[int] = set()
    for curve in curves:
        last = curve.groupby("stage", sort=False)["step"].max().tolist()
        ends |= set(last[:-1])
    return sorted(ends)


def _change(step: int, suffix: str) -> dict[str, Any]:
    """A dotted line where the exits are added to the backbone."""
    return {
        "type": "line",
        "x0": step,
        "x1": step,
        "xref": f"x{suffix}",
        "y0": 0,
        "y1": 1,
        "yref": f"y{suffix} domain",
        "line": {"color": FULL, "width": 1, "dash": "dot"},
    }
