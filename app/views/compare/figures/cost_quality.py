"""Cost against quality: lines of policy families, intervals, the floor of real images, the Pareto front."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from app.views.compare.figures.labels import Box, place
from app.views.compare.points import Axis, Point, cost_of, far_above
from app.widgets.figures import FULL, MORE, OTHERS, A, B, Spec, axis, spec

COSTS = {"gflops": "GFLOPs per image", "seconds": "seconds per image"}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down")
DASHES = ("solid", "dot", "dash")  # for more runs than there are colours
COLORS = (*OTHERS, *MORE)  # of policies or, where there are several, of runs
HEIGHT, PLOT = 430, (520.0, 290.0)  # pixels: of the figure, and the minimum within its axes

Range = tuple[float, float]


def cost_quality(
    points: Sequence[Point],
    front: Sequence[Point],
    measure: Axis,
    cost: str,  # a key of COSTS
    letters: dict[str, str],  # run/trace → A or B
    picked: Sequence[str],  # run/trace of those whose images are shown
) -> Spec:
    """One marker per trace; a click returns its run/trace as `customdata[0]`.

    With one run, colours and symbols are policies; with several, colours are runs and symbols policies.
    """
    shown = [p for p in points if cost_of(p, cost) is not None]
    order = sorted(shown, key=lambda p: (not p.is_full, p.run, p.family, cost_of(p, cost), p.key))
    floors = _floors(shown)
    x = _range([cost_of(p, cost) or 0.0 for p in shown], 0.08)
    beyond = {p.key for p in far_above(shown)}
    inside = [p.reading for p in shown if p.key not in beyond]
    y = _range([v for r in inside for v in (r.value, r.low, r.high)] + [*floors], 0.06)
    texts = _texts(order, cost, x, y, {*letters, *picked})
    looks = _Looks(order)
    data = _front(front, cost) if len(front) > 1 else []
    for (run, family), group in groupby(order, key=lambda p: (p.run, p.family)):
        members = list(group)
        data.append(_family(family, members, measure, cost, texts) | looks.of(run, family, members[0].is_full))
    data += looks.legend() + _rings(shown, cost, letters, picked)
    better = "higher is better" if measure.higher_is_better else "lower is better"
    unit = "mean |difference| in grey levels" if measure.name == "change" else measure.name.upper()
    axes = axis(COSTS[cost], range=x), axis(f"{unit}  ({better})", showgrid=True, range=y)
    return spec(data, *axes, height=HEIGHT, showlegend=True, **_floor_band(floors))


def _range(values: Sequence[float | None], room: float) -> Range:
    """From least to greatest, with a margin on both sides, given as a share of the span."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    more = room * ((high - low) or max(abs(high), 1.0))
    return low - more, high + more


def _texts(points: Sequence[Point], cost: str, x: Range, y: Range, first: Collection[str]) -> dict[str, str]:
    """Positions of the labels, by run/trace; A, B and picked traces are placed first."""
    across, up = PLOT[0] / (x[1] - x[0]), PLOT[1] / (y[1] - y[0])

    def at(point: Point, value: float) -> Range:
        return ((cost_of(point, cost) or 0.0) - x[0]) * across, (value - y[0]) * up

    obstacles = []
    for p in points:
        (left, middle), r = at(p, p.reading.value), p.reading
        bottom, top = (at(p, r.value if end is None else end)[1] for end in (r.low, r.high))
        obstacles += [Box(left - 7, middle - 7, left + 7, middle + 7), Box(left - 4, bottom, left + 4, top)]
    lines = [
        (*at(p, p.reading.value), *at(q, q.reading.value))
        for p, q in pairwise(points)
        if (p.run, p.family) == (q.run, q.family)
    ]
    order = sorted(points, key=lambda p: (p.key not in first, p.is_full))
    positions = place([(*at(p, p.reading.value), p.label) for p in order], obstacles, Box(0, 0, *PLOT), lines)
    return {p.key: position for p, position in zip(order, positions, strict=True) if position is not None}


class _Looks:
    """Colour, dash and symbol of every line, and the legend."""

    def __init__(self, points: Sequence[Point]):
        self.runs = sorted({p.run for p in points})
        self.families = sorted({p.family for p in points if not p.is_full})
        self.full = sorted({p.family for p in points if p.is_full})
        self.several = len(self.runs) > 1

    def of(self, run: str, family: str, is_full: bool) -> dict[str, Any]:
        """The full network is grey, with an edge in the run's colour where there are several runs."""
        own = self._line(run) if self.several else {"color": COLORS[self._place(family) % len(COLORS)], "width": 2}
        line = {**own, "color": FULL} if is_full else own
        edge = {"line": {"color": own["color"], "width": 2.5}} if is_full and self.several else {}
        marker = {"symbol": self._symbol(family), "size": 11, "color": line["color"], **edge}
        group = {"legendgroup": run, "showlegend": False} if self.several else {}
        return {"line": line, "marker": marker, **group}

    def _line(self, run: str) -> dict[str, Any]:
        place = self.runs.index(run)
        return {"color": COLORS[place % len(COLORS)], "width": 2, "dash": DASHES[place // len(COLORS) % len(DASHES)]}

    def _place(self, family: str) -> int:
        return self.families.index(family) if family in self.families else 0

    def _symbol(self, family: str) -> str:
        if family in self.full:
            return SYMBOLS[0]
        return SYMBOLS[(self._place(family) + self.several) % len(SYMBOLS)]  # a circle then is a full network

    def legend(self) -> list[dict[str, Any]]:
        """With several runs: a line for each, and a symbol for each policy."""
        if not self.several:
            return []
        empty = {"type": "scatter", "x": [None], "y": [None], "hoverinfo": "skip"}
        lines = [
            {**empty, "mode": "lines", "name": run, "legendgroup": run, "line": self._line(run)} for run in self.runs
        ]
        marks = [
            {
                **empty,
                "mode": "markers",
                "name": family,
                "marker": {"symbol": self._symbol(family), "size": 10, "color": FULL},
            }
            for family in self.full + self.families
        ]
        return lines + marks


def _front(front: Sequence[Point], cost: str) -> list[dict[str, Any]]:
    line = {"color": FULL, "width": 7, "shape": "hv"}
    x, y = [cost_of(p, cost) for p in front], [p.reading.value for p in front]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": x,
            "y": y,
            "line": line,
            "opacity": 0.3,
            "hoverinfo": "skip",
        }
    ]


def _family(name: str, members: list[Point], measure: Axis, cost: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """A line of one policy's traces, with 95 % intervals."""
    readings = [p.reading for p in members]
    up = [0.0 if r.high is None else r.high - r.value for r in readings]
    down = [0.0 if r.low is None else r.value - r.low for r in readings]
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": name,
        "x": [cost_of(p, cost) for p in members],
        "y": [r.value for r in readings],
        "text": [f"  {p.label}  " if p.key in texts else "" for p in members],
        "cliponaxis": False,
        "textposition": [texts.get(p.key, "middle right") for p in members],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": up,
            "arrayminus": down,
            "thickness": 1.5,
            "width": 5,
            "visible": any(up) or any(down),
        },
        "customdata": [
            [p.key, _interval(p), f"{p.gflops:.5g}", _seconds(p), f"{p.layer_ratio:.4f}", f"{p.images:,}"]
            for p in members
        ],
        "hovertemplate": "<b>%{customdata[0]}</b><br>" + measure.name + " %{y:.5g}%{customdata[1]}<br>"
        "%{customdata[2]} GFLOPs per image, %{customdata[3]}<br>"
        "layer ratio %{customdata[4]}, N = %{customdata[5]}<extra></extra>",
    }


def _interval(point: Point) -> str:
    r = point.reading
    interval = "" if r.low is None or r.high is None else f" [{r.low:.5g}, {r.high:.5g}]"
    return interval + ("" if r.floor is None else f", floor {r.floor:.5g}")


def _seconds(point: Point) -> str:
    return "seconds not measured" if point.seconds is None else f"{point.seconds:.4g} s per image"


def _floors(points: Sequence[Point]) -> list[float]:
    """Values of as many real images: least, mean, greatest, ± one standard deviation over draws; or nothing."""
    known = [(p.reading.floor, p.reading.floor_spread or 0.0) for p in points if p.reading.floor is not None]
    if not known:
        return []
    return [min(f - s for f, s in known), sum(f for f, _ in known) / len(known), max(f + s for f, s in known)]


def _floor_band(floors: Sequence[float]) -> dict[str, Any]:
    """Differences within the band are not significant."""
    if not floors:
        return {}
    low, middle, high = floors
    wide = {"xref": "x domain", "x0": 0, "x1": 1}
    band = {"type": "rect", **wide, "y0": low, "y1": high, "fillcolor": FULL, "opacity": 0.3, "line": {"width": 0}}
    line = {"type": "line", **wide, "y0": middle, "y1": middle, "line": {"color": FULL, "width": 1}}
    text = {
        "x": 0,
        "xref": "x domain",
        "xanchor": "left",
        "y": high,
        "yanchor": "bottom",
        "showarrow": False,
        "text": f"floor: real images, {middle:.4g}",
        "font": {"size": 11},
    }
    return {"shapes": [band, line], "annotations": [text]}


def _rings(points: Sequence[Point], cost: str, letters: dict[str, str], picked: Sequence[str]) -> list[dict[str, Any]]:
    """Rings around A and B in their colours, and around picked traces."""
    groups = [
        (f"trace {letter}", color, 22, [p for p in points if letters.get(p.key) == letter])
        for letter, color in (("A", A), ("B", B))
    ]
    groups.append(("images below", FULL, 16, [p for p in points if p.key in picked]))
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "hoverinfo": "skip",
            "x": [cost_of(p, cost) for p in members],
            "y": [p.reading.value for p in members],
            "marker": {"symbol": "circle-open", "size": size, "color": color, "line": {"width": 2.5}},
        }
        for name, color, size, members in groups
        if members
    ]
