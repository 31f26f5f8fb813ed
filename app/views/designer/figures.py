"""The trials of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.widgets.figures import Spec, axis, spec
from app.widgets.plans.figures import LOOKS
from app.widgets.plans.found import KINDS
from deediff.plans.trials import Trial

HEIGHT = 320


def trials(found: Mapping[str, Sequence[Trial]], metric: str, full_gflops: float) -> Spec:
    """Cost in GFLOPs per image against score of every trial, and a line through the best of each kind of search."""
    data = list[dict[str, Any]]()
    for kind, rows in found.items():
        color, _, symbol = LOOKS[kind]
        ordered = sorted(rows)
        marker = {"color": color, "symbol": symbol, "size": 6, "opacity": 0.6}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": KINDS[kind],
                "x": [trial.evaluations * full_gflops for trial in ordered],
                "y": [trial.score for trial in ordered],
                "customdata": [[trial.steps, trial.evaluations] for trial in ordered],
                "marker": marker,
                "hovertemplate": "%{x:.3g} GFLOPs per image, as %{customdata[1]:.2f} evaluations of the full network, "
                "score %{y:.2f}<br>%{customdata[0]}<extra></extra>",
            }
        )
        best = _best(ordered)
        line = {"type": "scatter", "mode": "lines", "line": {"color": color, "width": 1.5, "shape": "hv"}}
        quiet = {"hoverinfo": "skip", "showlegend": False}
        data.append(line | quiet | {"x": [t.evaluations * full_gflops for t in best], "y": [t.score for t in best]})
    scores = np.array([trial.score for rows in found.values() for trial in rows])
    top = float(np.quantile(scores, 0.7)) * 1.3 if len(scores) else 1.0
    low = float(scores.min()) if len(scores) else 0.0
    x = axis("GFLOPs per image", rangemode="tozero")
    return spec(data, x, axis(metric, showgrid=True, range=[0.9 * low, top]), height=HEIGHT, showlegend=True)


def _best(ordered: Sequence[Trial]) -> list[Trial]:
    """The trials than which no cheaper one has a smaller score."""
    found = list[Trial]()
    for trial in ordered:
        if not found or trial.score < found[-1].score:
            found.append(trial)
    return found
