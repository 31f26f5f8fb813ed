"""Cost against quality: lines of policy families, intervals, the floor of real images, the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from comparison import Axis, Point, cost_of
from deediff.analysis.published import Published
from figures.plain import FULL, OTHERS, A, B, Spec, axis, spec

COSTS = {"gflops": "GFLOPs per image", "seconds": "seconds per image"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")
NEUTRAL = "#7f7f7f"
HEIGHT = 430


def cost_quality(
    points: Sequence[Point],
    front: Sequence[Point],
    measure: Axis,
    cost: str,  # a key of COSTS
    letters: dict[str, str],  # run/trace → A or B
    picked: Sequence[str],  # run/trace of those whose images are shown
) -> Spec:
    """One marker per trace; a click hands back its run/trace as `customdata[0]`."""
    shown = [p for p in points if cost_of(p, cost) is not None]
    families = sorted({p.family for p in shown if not p.is_full})
    data = _front(front, cost) if len(front) > 1 else []
    for family, group in groupby(sorted(shown, key=lambda p: (not p.is_full, p.family)), key=lambda p: p.family):
        members = sorted(group, key=lambda p: (cost_of(p, cost), p.key))
        place = -1 if members[0].is_full else families.index(family)
        look = (FULL, SYMBOLS[0]) if place < 0 else (OTHERS[place % len(OTHERS)], SYMBOLS[place % len(SYMBOLS)])
        data.append(_family(family, members, measure, cost, *look))
    data += _rings(shown, cost, letters, picked)
    better = "higher is better" if measure.higher_is_better else "lower is better"
    unit = "mean |difference| in grey levels" if measure.name == "change" else measure.name.upper()
    x, y = (
        axis(COSTS[cost], **_with_room([cost_of(p, cost) or 0.0 for p in shown])),
        axis(f"{unit}  ({better})", showgrid=True),
    )
    return spec(data, x, y, height=HEIGHT, showlegend=True, **_floor(shown))


def _with_room(costs: Sequence[float]) -> dict[str, Any]:
    """A range that leaves place for the labels at the right of the points."""
    low, high = min(costs, default=0.0), max(costs, default=1.0)
    width = (high - low) or max(high, 1.0) * 0.1
    return {"range": [low - 0.07 * width, high + 0.16 * width]}


def _front(front: Sequence[Point], cost: str) -> list[dict[str, Any]]:
    line = {"color": NEUTRAL, "width": 7, "shape": "hv"}
    x, y = [cost_of(p, cost) for p in front], [p.reading.value for p in front]
    return [{"type": "scatter", "mode": "lines", "name": "Pareto front", "x": x, "y": y, "line": line, "opacity": 0.3,
             "hoverinfo": "skip"}]  # fmt: skip


def _family(name: str, members: list[Point], measure: Axis, cost: str, color: str, symbol: str) -> dict[str, Any]:
    """A line of one policy's traces, with 95 % intervals."""
    readings = [p.reading for p in members]
    up = [0.0 if r.high is None else r.high - r.value for r in readings]
    down = [0.0 if r.low is None else r.value - r.low for r in readings]
    return {
        "type": "scatter", "mode": "lines+markers+text", "name": name,
        "x": [cost_of(p, cost) for p in members], "y": [r.value for r in readings],
        "text": [f"   {p.label}" for p in members], "textposition": "middle right", "cliponaxis": False,
        "line": {"color": color, "width": 2}, "marker": {"symbol": symbol, "size": 11, "color": color},
        "error_y": {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "color": color,
                    "thickness": 1.5, "width": 5, "visible": any(up) or any(down)},
        "customdata": [[p.key, _interval(p), f"{p.gflops:.5g}", _seconds(p), f"{p.layer_ratio:.4f}", f"{p.images:,}"]
                       for p in members],
        "hovertemplate": "<b>%{customdata[0]}</b><br>" + measure.name + " %{y:.5g}%{customdata[1]}<br>"
        "%{customdata[2]} GFLOPs per image, %{customdata[3]}<br>"
        "layer ratio %{customdata[4]}, N = %{customdata[5]}<extra></extra>",
    }  # fmt: skip


def _interval(point: Point) -> str:
    r = point.reading
    interval = "" if r.low is None or r.high is None else f" [{r.low:.5g}, {r.high:.5g}]"
    return interval + ("" if r.floor is None else f", floor {r.floor:.5g}")


def _seconds(point: Point) -> str:
    return "seconds not measured" if point.seconds is None else f"{point.seconds:.4g} s per image"


def _floor(points: Sequence[Point]) -> dict[str, list[Any]]:
    """What as many real images reach, ± one standard deviation over draws: a difference within it is none."""
    floors = [(p.reading.floor, p.reading.floor_spread or 0.0) for p in points if p.reading.floor is not None]
    if not floors:
        return {}
    low, high = min(f - s for f, s in floors), max(f + s for f, s in floors)
    middle = sum(f for f, _ in floors) / len(floors)
    wide = {"xref": "x domain", "x0": 0, "x1": 1}
    band = {"type": "rect", **wide, "y0": low, "y1": high, "fillcolor": FULL, "opacity": 0.3, "line": {"width": 0}}
    line = {"type": "line", **wide, "y0": middle, "y1": middle, "line": {"color": FULL, "width": 1}}
    text = {"x": 0, "xref": "x domain", "xanchor": "left", "y": high, "yanchor": "bottom", "showarrow": False,
            "text": f"floor: real images, {middle:.4g}", "font": {"color": FULL, "size": 11}}  # fmt: skip
    return {"shapes": [band, line], "annotations": [text]}


def _rings(points: Sequence[Point], cost: str, letters: dict[str, str], picked: Sequence[str]) -> list[dict[str, Any]]:
    """Rings around A and B in their colours, and around what is picked."""
    groups = [(f"trace {letter}", color, 22, [p for p in points if letters.get(p.key) == letter])
              for letter, color in (("A", A), ("B", B))]  # fmt: skip
    groups.append(("images below", NEUTRAL, 16, [p for p in points if p.key in picked]))
    return [
        {"type": "scatter", "mode": "markers", "name": name, "hoverinfo": "skip",
         "x": [cost_of(p, cost) for p in members], "y": [p.reading.value for p in members],
         "marker": {"symbol": "circle-open", "size": size, "color": color, "line": {"width": 2.5}}}
        for name, color, size, members in groups if members
    ]  # fmt: skip


STRATEGIES = {"frozen": OTHERS[0], "finetuned": OTHERS[1], "scratch": OTHERS[2]}
HOLLOW = {"mlp per layer": "circle-open", "mlp per timestep": "square-open", "attention per layer": "triangle-up-open",
          "mlp per layer and timestep": "diamond-open"}  # fmt: skip


def published_gflops(full: Published, tables: Mapping[tuple[str, str, str, str], Published]) -> Spec:
    """FIDs that others printed, hollow: symbols tell the UEM, colours how the backbone was trained."""
    entries = {key: line for key, line in tables.items() if key[0] in HOLLOW}
    data = [_hollow("full network", [(full.gflops, full.fid, f"{full.table}, no early exit")], ["circle-open"], FULL)]
    for strategy, color in STRATEGIES.items():
        chosen = {key: line for key, line in entries.items() if key[1] == strategy}
        points = [
            (line.gflops, line.fid, f"{line.table}: {uem}, {strategy}, {losses} losses, τ = {tau}<br>"
                                    f"layer ratio −{line.layer_reduction:g} %")
            for (uem, _, losses, tau), line in chosen.items()
        ]  # fmt: skip
        data.append(_hollow(strategy, points, [HOLLOW[key[0]] for key in chosen], color))
    x = axis("GFLOPs per image and step, without attention products")
    return spec(data, x, axis("FID as printed  (lower is better)", showgrid=True), height=HEIGHT, showlegend=True)


def published_seconds(families: Mapping[str, Sequence[tuple[float, float]]]) -> Spec:
    """(FID, seconds per image) that others printed, hollow, one line per policy."""
    data = []
    for (name, pairs), color in zip(families.items(), (FULL, *OTHERS), strict=False):
        line = _hollow(name, [(seconds, fid, name) for fid, seconds in pairs], ["circle-open"] * len(pairs), color)
        data.append({**line, "mode": "lines+markers", "line": {"color": color, "width": 1}})
    x, y = axis("seconds per image, as printed"), axis("FID as printed  (lower is better)", showgrid=True)
    return spec(data, x, y, height=HEIGHT, showlegend=True)


def _hollow(name: str, points: Sequence[tuple[float, float, str]], symbols: list[str], color: str) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "markers", "name": name, "x": [p[0] for p in points], "y": [p[1] for p in points],
        "customdata": [p[2] for p in points], "marker": {"symbol": symbols, "size": 11, "color": color,
                                                         "line": {"width": 2, "color": color}},
        "hovertemplate": "%{customdata}<br>FID %{y:g} at %{x:g}<extra></extra>",
    }  # fmt: skip
