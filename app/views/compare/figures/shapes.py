"""Shapes behind and over the marks: the floor of real images, and the lines that are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.views.compare.points import Point
from app.views.compare.reading import BUDGET, LEVEL, Lines
from app.widgets.figures import CHOSEN, FULL


def floors_of(points: Sequence[Point]) -> list[float]:
    """Values of as many real images: least, mean, greatest, ± one standard deviation over draws; or nothing."""
    known = [(p.reading.floor, p.reading.floor_spread or 0.0) for p in points if p.reading.floor is not None]
    if not known:
        return []
    return [min(f - s for f, s in known), sum(f for f, _ in known) / len(known), max(f + s for f, s in known)]


def floor_band(floors: Sequence[float]) -> list[dict[str, Any]]:
    """Differences within the band are not significant."""
    if not floors:
        return []
    low, middle, high = floors
    wide = {"xref": "x domain", "x0": 0, "x1": 1, "layer": "below"}
    band = {"type": "rect", **wide, "y0": low, "y1": high, "fillcolor": FULL, "opacity": 0.3, "line": {"width": 0}}
    return [band, {"type": "line", **wide, "y0": middle, "y1": middle, "line": {"color": FULL, "width": 1}}]


def floor_words(floors: Sequence[float]) -> str:
    """The floor's text."""
    return f"floor: real images, {floors[1]:.3g}"


def floor_text(floors: Sequence[float]) -> list[dict[str, Any]]:
    """The floor's text as an annotation at the left, above the band."""
    if not floors:
        return []
    place = {"x": 0, "xref": "x domain", "xanchor": "left", "y": floors[2], "yanchor": "bottom", "showarrow": False}
    return [{**place, "text": floor_words(floors), "font": {"size": 11}}]


def reading_lines(lines: Lines | None) -> list[dict[str, Any]]:
    """A budget and a quality that can be dragged."""
    if lines is None:
        return []
    style = {"type": "line", "line": {"color": CHOSEN, "width": 2, "dash": "dash"}}
    budget = {"name": BUDGET, "x0": lines.budget, "x1": lines.budget, "yref": "y domain", "y0": 0, "y1": 1}
    level = {"name": LEVEL, "y0": lines.level, "y1": lines.level, "xref": "x domain", "x0": 0, "x1": 1}
    return [{**style, **budget}, {**style, **level}]
