"""Figures of cost against quality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.views.compare.figures.cost_quality import FULL as GREY
from app.views.compare.figures.cost_quality import Marked, cost_quality
from app.views.compare.figures.labels import Box, place, placed
from app.views.compare.figures.published import published_gflops, published_seconds
from app.views.compare.points import (
    Axis,
    far_above,
)
from app.views.compare.reading import Lines
from deediff.analysis.published import FULL, SECONDS, TABLES
from tests.app.compare.test_points import point


def test_what_lies_far_above_does_not_squeeze_the_others() -> None:
    points = [point(1.0, value, str(k)) for k, value in enumerate([5.0, 6.0, 7.0, 9.0, 12.0, 20.0, 25.0, 90.0, 240.0])]
    assert not far_above(points)  # nine have no two to spare
    assert [p.key for p in far_above([*points, point(1.0, 8.0, "more")])] == ["7", "8"]


def test_the_picture_holds_values_intervals_and_the_floor() -> None:
    shown = [point(3.0, 10.0, "r/a", low=9.0, high=12.0, floor=3.0, floor_spread=0.5), point(5.0, 8.0, "r/b")]
    spec = cost_quality(
        shown, [[], shown], Axis("fid", "FID", False), "gflops", Marked({"r/a": "A"}, ["r/b"], Lines(4.0, 9.0))
    )
    figure = go.Figure(spec)  # every attribute is one that Plotly knows
    line = next(trace for trace in figure.data if trace.name == "threshold")
    assert (list(line.x), list(line.y)) == ([3.0, 5.0], [10.0, 8.0])
    assert (list(line.error_y.array), list(line.error_y.arrayminus)) == ([2.0, 0.0], [1.0, 0.0])
    assert [entry[0] for entry in line.customdata] == ["r/a", "r/b"]
    band = figure.layout.shapes[0]
    assert (band.y0, band.y1) == (2.5, 3.5)
    assert {s.name: (s.x0, s.y0) for s in figure.layout.shapes if s.name} == {"budget": (4.0, 0), "level": (0, 9.0)}
    assert {s.layer for s in figure.layout.shapes if not s.name} == {"below"}  # Plotly cannot drag these
    rings = {trace.name: list(trace.x) for trace in figure.data if trace.mode == "markers"}
    assert rings == {"trace A": [3.0], "images below": [5.0]}


def test_colours_are_runs_and_symbols_policies_where_several_runs_are_compared() -> None:
    families = ("full network", "fixed", "threshold")
    places = [(f"r{run}/{family}", family) for run in range(7) for family in families]
    shown = [point(float(k), float(k), key, family) for k, (key, family) in enumerate(places)]
    figure = go.Figure(cost_quality(shown, [[], []], Axis("fid", "FID", False), "gflops", Marked()))
    lines = {trace.customdata[0][0]: trace for trace in figure.data if trace.customdata}
    assert len(lines) == len(places)
    looks = {key: (line.line.color, line.line.dash) for key, line in lines.items()}
    for run in range(7):
        assert looks[f"r{run}/fixed"] == looks[f"r{run}/threshold"]
        assert lines[f"r{run}/full network"].marker.color == GREY
        assert lines[f"r{run}/full network"].marker.line.color == looks[f"r{run}/fixed"][0]
    assert len({looks[f"r{run}/fixed"] for run in range(7)}) == 7
    for family in families:
        assert len({lines[f"r{run}/{family}"].marker.symbol for run in range(7)}) == 1
    assert len({lines[f"r0/{family}"].marker.symbol for family in families}) == len(families)
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert legend == [*(f"run r{run}" for run in range(7)), *families]


@pytest.mark.parametrize("runs", [1, 3])
def test_no_two_families_of_a_run_look_alike(runs: int) -> None:
    places = [
        (f"r{run}/{kind}{k}", kind + str(k)) for run in range(runs) for kind in ("full network", "p") for k in range(9)
    ]
    shown = [point(float(k), float(k), key, family) for k, (key, family) in enumerate(places)]
    shown = [replace(p, is_full=p.family.startswith("full")) for p in shown]
    figure = go.Figure(cost_quality(shown, [[], []], Axis("fid", "FID", False), "gflops", Marked()))
    looks = [(t.marker.symbol, t.line.color, t.line.dash, t.marker.line.color) for t in figure.data if t.customdata]
    assert len(set(looks)) == len(looks) == len(places)
    symbols = {
        p.family: t.marker.symbol for t in figure.data if t.customdata for p in shown if p.key == t.customdata[0][0]
    }
    assert len(set(symbols.values())) == 18


def test_a_curve_of_one_point_is_a_point() -> None:
    shown = [point(3.0, 10.0, "r/a"), point(4.0, 9.0, "r/b", "fixed"), point(5.0, 8.0, "r/c", "fixed")]
    figure = cost_quality(shown, [[], shown[:1]], Axis("fid", "FID", False), "gflops", Marked())
    modes = {trace["name"]: trace["mode"] for trace in figure["data"]}
    assert modes == {"front with exits": "markers", "threshold": "markers+text", "fixed": "lines+markers+text"}


@given(st.lists(st.tuples(st.floats(0, 500), st.floats(0, 290), st.sampled_from(["τ = 0.1", "50 steps"]))))
def test_labels_cover_nothing(points: list[tuple[float, float, str]]) -> None:
    marks, around = [Box(x - 7, y - 7, x + 7, y + 7) for x, y, _ in points], Box(0, 0, 500, 290)
    positions = place(points, marks, around)
    written = [(p, placed(*p, position)) for p, position in zip(points, positions, strict=True) if position is not None]
    boxes = [box for _, box in written]
    for (x, y, _), box in written:  # it is read as the nearest point's
        assert all(box.distance(x, y) < box.distance(u, v) for u, v, _ in points if (u, v) != (x, y))
    for k, box in enumerate(boxes):
        assert not any(box.covers(other) for other in (*boxes[k + 1 :], *marks))
        assert 0 <= box.left < box.right <= 500
        assert 0 <= box.bottom < box.top <= 290
    if len(points) == 1:
        assert len(boxes) == 1


@given(st.tuples(*[st.integers(-20, 20)] * 4))
def test_a_box_meets_a_line_that_has_a_point_in_it(line: tuple[int, int, int, int]) -> None:
    box, along = Box(-5, -3, 6, 4), np.linspace(0, 1, 4001)
    x, y = line[0] + along * (line[2] - line[0]), line[1] + along * (line[3] - line[1])
    inside = (x > -5) & (x < 6) & (y > -3) & (y < 4)
    touches = (x >= -5.01) & (x <= 6.01) & (y >= -3.01) & (y <= 4.01)
    assert inside.any() <= box.meets(line) <= touches.any()


def test_published_marks_are_hollow_and_all_there() -> None:
    for spec, count in ((published_gflops(FULL, TABLES), 1 + len(TABLES)), (published_seconds(SECONDS), 8)):
        figure = go.Figure(spec)
        symbols = [symbol for trace in figure.data for symbol in trace.marker.symbol]
        assert len(symbols) == sum(len(trace.x) for trace in figure.data) == count
        assert all(symbol.endswith("-open") for symbol in symbols)
