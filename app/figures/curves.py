"""Training curves: one small picture per loss term, one line per run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from figures.plain import FULL, OTHERS, A, Spec, axis, packed, spec

COLORS = (A, *OTHERS)
HEIGHT = 300


def training_curves(curves: Mapping[str, pd.DataFrame], terms: Mapping[str, str]) -> Spec:
    """Loss against step on a logarithmic scale; terms: column → what it is. Empty terms are left out."""
    shown = [term for term in terms if any(_has(curve, term) for curve in curves.values())]
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"annotations": [], "shapes": []}
    for place, term in enumerate(shown):
        suffix = "" if place == 0 else str(place + 1)
        gap = 0.05 if len(shown) > 1 else 0.0
        width = (1 - gap * (len(shown) - 1)) / len(shown)
        left = place * (width + gap)
        layout[f"xaxis{suffix}"] = axis("step", domain=[left, left + width], anchor=f"y{suffix}", nticks=4)
        layout[f"yaxis{suffix}"] = axis("", type="log", anchor=f"x{suffix}", showgrid=True, exponentformat="none")
        name = f"<b>{term.removeprefix('loss_')}</b> · {terms[term]}"
        layout["annotations"].append({
            "text": name, "x": left, "xref": "paper", "xanchor": "left", "y": 1, "yref": "paper", "yanchor": "bottom",
            "showarrow": False, "font": {"size": 12},
        })  # fmt: skip
        data += [_line(run, curves[run], term, suffix, i, place == 0) for i, run in enumerate(curves)
                 if _has(curves[run], term)]  # fmt: skip
    layout["shapes"] = [_change(step, "" if place == 0 else str(place + 1))
                        for place in range(len(shown)) for step in _stage_changes(list(curves.values()))]  # fmt: skip
    legend = {"orientation": "h", "y": -0.25, "yanchor": "top", "x": 0}
    x, y = layout.pop("xaxis", axis("step")), layout.pop("yaxis", axis("loss"))
    margin = {"l": 8, "r": 8, "t": 26, "b": 8}
    return spec(data, x, y, height=HEIGHT, margin=margin, legend=legend, showlegend=len(curves) > 1, **layout)


def _has(curve: pd.DataFrame, term: str) -> bool:
    return term in curve and bool(curve[term].notna().any())


def _line(run: str, curve: pd.DataFrame, term: str, suffix: str, i: int, legend: bool) -> dict[str, Any]:
    known = curve[curve[term].notna()]
    return {
        "type": "scatter", "mode": "lines", "name": run, "legendgroup": run, "showlegend": legend,
        "x": packed(known["step"].to_numpy(np.int32)), "y": packed(known[term].to_numpy(np.float64)),
        "xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "line": {"color": COLORS[i % len(COLORS)], "width": 2},
        "customdata": known["stage"].tolist(),
        "hovertemplate": f"{run}<br>step %{{x}}, stage %{{customdata}}<br>{term} = %{{y:.5g}}<extra></extra>",
    }  # fmt: skip


def _stage_changes(curves: Sequence[pd.DataFrame]) -> list[int]:
    """The last step of every stage but the last, over all runs."""
    ends: set[int] = set()
    for curve in curves:
        last = curve.groupby("stage", sort=False)["step"].max().tolist()
        ends |= set(last[:-1])
    return sorted(ends)


def _change(step: int, suffix: str) -> dict[str, Any]:
    """A dotted line where the exits are put on the backbone."""
    return {"type": "line", "x0": step, "x1": step, "xref": f"x{suffix}", "y0": 0, "y1": 1, "yref": f"y{suffix} domain",
            "line": {"color": FULL, "width": 1, "dash": "dot"}}  # fmt: skip
