"""Published results, as hollow marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.views.compare.figures.cost_quality import HEIGHT
from app.widgets.figures import FULL, OTHERS, Spec, axis, spec
from deediff.analysis.published import STEPS, Published

STRATEGIES = {"frozen": OTHERS[0], "finetuned": OTHERS[1], "scratch": OTHERS[2]}
HOLLOW = {
    "mlp per layer": "circle-open",
    "mlp per timestep": "square-open",
    "attention per layer": "triangle-up-open",
    "mlp per layer and timestep": "diamond-open",
}


def published_gflops(full: Published, tables: Mapping[tuple[str, str, str, str], Published]) -> Spec:
    """Published FIDs as hollow marks: symbols are UEMs, colours the training of the backbone."""
    entries = {key: line for key, line in tables.items() if key[0] in HOLLOW}
    full_text = f"{full.table}, no early exit, {full.gflops:g} GFLOPs per step"
    data = [_hollow("full network", [(full.gflops * STEPS, full.fid, full_text)], ["circle-open"], FULL)]
    for strategy, color in STRATEGIES.items():
        chosen = {key: line for key, line in entries.items() if key[1] == strategy}
        points = [
            (
                line.gflops * STEPS,
                line.fid,
                f"{line.table}: {uem}, {strategy}, {losses} losses, τ = {tau}<br>"
                f"layer ratio −{line.layer_reduction:g} %, {line.gflops:g} GFLOPs per step",
            )
            for (uem, _, losses, tau), line in chosen.items()
        ]
        data.append(_hollow(strategy, points, [HOLLOW[key[0]] for key in chosen], color))
    x = axis(f"GFLOPs per image, {STEPS:,} steps, without attention products")
    return spec(data, x, axis("FID as published  (lower is better)", showgrid=True), height=HEIGHT, showlegend=True)


def published_seconds(families: Mapping[str, Sequence[tuple[float, float]]]) -> Spec:
    """Published (FID, seconds per image) as hollow marks, one line per policy."""
    data = []
    for (name, pairs), color in zip(families.items(), (FULL, *OTHERS), strict=False):
        line = _hollow(name, [(seconds, fid, name) for fid, seconds in pairs], ["circle-open"] * len(pairs), color)
        data.append({**line, "mode": "lines+markers", "line": {"color": color, "width": 1}})
    x, y = axis("seconds per image, as published"), axis("FID as published  (lower is better)", showgrid=True)
    return spec(data, x, y, height=HEIGHT, showlegend=True)


def _hollow(name: str, points: Sequence[tuple[float, float, str]], symbols: list[str], color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [p[0] for p in points],
        "y": [p[1] for p in points],
        "customdata": [p[2] for p in points],
        "marker": {"symbol": symbols, "size": 11, "color": color, "line": {"width": 2, "color": color}},
        "hovertemplate": "%{customdata}<br>FID %{y:g} at %{x:g}<extra></extra>",
    }
