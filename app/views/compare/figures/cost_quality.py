"""Cost against quality: lines of policy families, intervals, the floor of real images, the Pareto front."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

from app.views.compare.figures.labels import CHARACTER, LINE, Box, place
from app.views.compare.figures.shapes import floor_band, floor_text, floor_words, floors_of, reading_lines
from app.views.compare.points import COSTS, Axis, Point, cost_of, far_above
from app.views.compare.reading import Lines
from app.widgets.figures import FULL, MORE, OTHERS, A, B, Spec, axis, spec

SYMBOLS = (  # none is hollow: published numbers are
    *("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "x", "pentagon"),
    *("hexagram", "bowtie", "star-triangle-up", "star-square", "hourglass", "star-diamond", "triangle-left", "octagon"),
    *("triangle-right", "diamond-wide", "star-triangle-down", "diamond-tall", "triangle-ne", "triangle-sw"),
)
DASHES = ("solid", "dot", "dash")  # for more runs than there are colours
COLORS = (*OTHERS, *MORE)  # of policies or, where there are several, of runs
FRONTS = (("front of the full network", FULL), ("front with exits", A))
HEIGHT, PLOT = 430, (520.0, 290.0)  # pixels: of the figure, and the minimum within its axes

Range = tuple[float, float]


@dataclass(frozen=True)
class Marked:
    """What is marked in the figure."""

    letters: Mapping[str, str] = field(default_factory=dict)  # run/trace → A or B
    picked: Sequence[str] = ()  # run/trace of those whose images are shown
    lines: Lines | None = None  # positions that are read


def cost_quality(
    points: Sequence[Point],  # each with this cost
    fronts: Sequence[Sequence[Point]],  # of the full network, and with exits
    measure: Axis,
    cost: str,  # a key of COSTS
    marked: Marked,
) -> Spec:
    """One marker per trace or plan; a click returns its key as `customdata[0]`.

    With one run, colours and symbols are policies; with several, colours are runs and symbols policies.
    """
    order = sorted(points, key=lambda p: (not p.is_full, p.run, p.family, cost_of(p, cost), p.key))
    floors, lines = floors_of(points), marked.lines
    x = _range([cost_of(p, cost) for p in points] + ([lines.budget] if lines else []), 0.08)
    beyond = {p.key for p in far_above(points)}
    inside = [p.reading for p in points if p.key not in beyond]
    ends = [v for r in inside for v in (r.value, r.low, r.high)]
    y = _range(ends + [*floors] + ([lines.level] if lines else []), 0.06)
    texts = _texts(order, cost, Frame(x, y, floors, lines), {*marked.letters, *marked.picked})
    looks = _Looks(order)
    data = [_front(front, name, color, cost) for front, (name, color) in zip(fronts, FRONTS, strict=True) if front]
    for (run, family), group in groupby(order, key=lambda p: (p.run, p.family)):
        members = list(group)
        data.append(_family(family, members, measure, cost, texts) | looks.of(run, family, members[0].is_full))
    data += looks.legend() + _rings(points, cost, marked.letters, marked.picked)
    better = "higher is better" if measure.higher_is_better else "lower is better"
    unit = "mean |difference| in grey levels" if measure.name == "change" else measure.name.upper()
    axes = axis(COSTS[cost], range=x), axis(f"{unit}  ({better})", showgrid=True, range=y)
    shapes: dict[str, Any] = {
        "shapes": [*floor_band(floors), *reading_lines(lines)],
        "annotations": floor_text(floors),
    }
    return spec(data, *axes, height=_height(data), showlegend=True, **shapes)


def _height(data: Sequence[Mapping[str, Any]]) -> int:
    """In pixels; long legends have more rows."""
    return HEIGHT + 8 * max(0, sum(trace.get("showlegend", True) for trace in data) - 8)


def _range(values: Sequence[float | None], room: float) -> Range:
    """From least to greatest, with a margin on both sides, given as a share of the span."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    more = room * ((high - low) or max(abs(high), 1.0))
    return low - more, high + more


@dataclass(frozen=True)
class Frame:
    """What the labels have to fit into."""

    x: Range
    y: Range
    floors: Sequence[float]
    lines: Lines | None

    def at(self, cost: float, value: float) -> Range:
        """Pixels within the axes."""
        return (cost - self.x[0]) * PLOT[0] / (self.x[1] - self.x[0]), (value - self.y[0]) * PLOT[1] / (
            self.y[1] - self.y[0]
        )

    def written(self) -> list[Box]:
        """The texts of the floor and of both lines."""
        boxes = []
        if self.floors:
            _, bottom = self.at(0, self.floors[2])
            boxes.append(Box(0, bottom, CHARACTER * len(floor_words(self.floors)), bottom + LINE))
        if self.lines is not None:
            left, bottom = self.at(self.lines.budget, self.lines.level)
            boxes += [Box(left - 3, 0, left + 3, PLOT[1]), Box(0, bottom - 3, PLOT[0], bottom + 3)]
        return boxes


def _texts(points: Sequence[Point], cost: str, frame: Frame, first: Collection[str]) -> dict[str, str]:
    """Positions of the labels, by key; A, B and picked traces are placed first."""

    def at(point: Point, value: float) -> Range:
        return frame.at(cost_of(point, cost) or 0.0, value)

    obstacles = frame.written()
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
        self.full = sorted({p.family for p in points if p.is_full})
        self.families = sorted({p.family for p in points if not p.is_full} - {*self.full})
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
        return SYMBOLS[[*self.full, *self.families].index(family) % len(SYMBOLS)]

    def legend(self) -> list[dict[str, Any]]:
        """With several runs: a line for each, and a symbol for each policy."""
        if not self.several:
            return []
        empty = {"type": "scatter", "x": [None], "y": [None], "hoverinfo": "skip"}
        lines = [
            {**empty, "mode": "lines", "name": f"run {run}", "legendgroup": run, "line": self._line(run)}
            for run in self.runs
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


def _front(front: Sequence[Point], name: str, color: str, cost: str) -> dict[str, Any]:
    """Steps; a wide mark where it is one point."""
    one = len(front) == 1
    return {
        "type": "scatter",
        "mode": "markers" if one else "lines",
        "name": name,
        "x": [cost_of(p, cost) for p in front],
        "y": [p.reading.value for p in front],
        **({"marker": {"color": color, "size": 20}} if one else {"line": {"color": color, "width": 7, "shape": "hv"}}),
        "opacity": 0.4,
        "hoverinfo": "skip",
    }


def _family(name: str, members: list[Point], measure: Axis, cost: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """A line of one policy's traces or plans, with 95 % intervals; one alone is a mark."""
    readings = [p.reading for p in members]
    up = [0.0 if r.high is None else r.high - r.value for r in readings]
    down = [0.0 if r.low is None else r.value - r.low for r in readings]
    return {
        "type": "scatter",
        "mode": "lines+markers+text" if len(members) > 1 else "markers+text",
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
            [p.key, _interval(p), f"{p.gflops:.5g}", f"{p.gflops / p.steps:.4g} per step", _seconds(p), _details(p)]
            for p in members
        ],
        "hovertemplate": "<b>%{customdata[0]}</b><br>" + measure.name + " %{y:.5g}%{customdata[1]}<br>"
        "%{customdata[2]} GFLOPs per image (%{customdata[3]}), %{customdata[4]}<br>"
        "%{customdata[5]}<extra></extra>",
    }


def _interval(point: Point) -> str:
    r = point.reading
    interval = "" if r.low is None or r.high is None else f" [{r.low:.5g}, {r.high:.5g}]"
    return interval + ("" if r.floor is None else f", floor {r.floor:.5g}")


def _details(point: Point) -> str:
    ratio = "" if point.layer_ratio is None else f"layer ratio {point.layer_ratio:.4f}, "
    return f"{ratio}N = {point.images:,}"


def _seconds(point: Point) -> str:
    return "seconds not measured" if point.seconds is None else f"{point.seconds:.4g} s per image"


def _rings(
    points: Sequence[Point], cost: str, letters: Mapping[str, str], picked: Sequence[str]
) -> list[dict[str, Any]]:
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
