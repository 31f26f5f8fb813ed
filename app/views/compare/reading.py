"""Equal cost and equal quality: the best at a budget, and the cheapest at a quality, each beside the full network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, log10
from typing import Any

import streamlit as st

from app.state.selection import Selection
from app.views.compare.front import quality_gap
from app.views.compare.points import COSTS, Axis, Point, cost_of
from app.widgets import inputs
from app.widgets.panels import Panel

DIGITS = 4  # of a position
BEYOND = 2.0  # the inputs take values up to so many times the largest
BUDGET, LEVEL = "budget", "level"  # names of the lines in the figure
MOVED = "moved line"  # session state: where a line was dragged, by the key of its input
BUDGET_HELP = "Best at this cost. Or drag the vertical line in the figure."
LEVEL_HELP = "Cheapest at this quality. Or drag the horizontal line in the figure."


@dataclass(frozen=True)
class Lines:
    """The positions of both lines in the figure."""

    budget: float  # GFLOPs or seconds per image
    level: float  # of the metric


def rounded(value: float, up: bool | None = None) -> float:
    """To DIGITS digits: to the nearest, or up, or down."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (floor(log10(abs(value))) - DIGITS + 1)
    whole = round(value / unit) if up is None else ceil(value / unit) if up else floor(value / unit)
    return float(f"{whole * unit:.{DIGITS}g}")


def best_full(points: Sequence[Point], axis: Axis, cost: str) -> Point | None:
    """The full network's point of best quality, of equal ones the cheapest; the best of all where none is."""
    sign = -1.0 if axis.higher_is_better else 1.0
    known = [
        (not p.is_full, sign * p.reading.value, c, p.key, p) for p in points if (c := cost_of(p, cost)) is not None
    ]
    return min(known, key=lambda entry: entry[:4])[-1] if known else None


def choose_lines(points: Sequence[Point], axis: Axis, cost: str) -> Lines | None:
    """Inputs of both positions; by default half the cost of the full network's best point, and its quality.

    None where nothing is to be read: no point has this cost, or a change of images is no quality.
    """
    rival = best_full(points, axis, cost)
    if rival is None or axis.full is not None:
        return None
    costs = [c for p in points if (c := cost_of(p, cost)) is not None]
    values = [p.reading.value for p in points]
    most, spent = rounded(BEYOND * max(costs), True), cost_of(rival, cost) or 0.0
    moved: dict[str, float] = st.session_state.pop(MOVED, {})
    budget = inputs.number_input(
        f"Budget ({COSTS[cost].partition(' ')[0]})",
        0.0,
        most,
        _key(cost),
        rounded(spent / 2),
        moved.get(_key(cost)),
        help=BUDGET_HELP,
        **_steps(most),
    )
    ends = rounded(BEYOND * min(0.0, *values), False), rounded(BEYOND * max(0.0, *values), True)
    level = inputs.number_input(
        f"Quality ({axis.name})",
        *ends,
        _key(axis.name),
        rounded(rival.reading.value, not axis.higher_is_better),
        moved.get(_key(axis.name)),
        help=LEVEL_HELP,
        **_steps(ends[1]),
    )
    return Lines(budget, level)


def _steps(most: float) -> dict[str, Any]:
    """Of the arrow keys; and the width."""
    return {"step": 10.0 ** floor(log10(max(most, 1e-9) / 50)), "format": f"%.{DIGITS}g", "width": 128}


def _key(of: str) -> str:
    """In the URL: a position means something for its own unit or metric only."""
    return f"at_{of}"


def moves(axis: Axis, cost: str) -> Mapping[str, Callable[[float], None]]:
    """What dragging each line of the figure does."""

    def move(of: str, value: float) -> None:
        st.session_state[MOVED] = {_key(of): rounded(value)}

    return {BUDGET: partial(move, cost), LEVEL: partial(move, axis.name)}


def at_budget(points: Sequence[Point], axis: Axis, cost: str, budget: float) -> list[Point]:
    """The best without and with exits of at most this cost, the better one first; fewer where there is none."""
    sign = -1.0 if axis.higher_is_better else 1.0

    def rank(point: Point) -> tuple[float, float, bool, str]:
        return sign * point.reading.value, cost_of(point, cost) or 0.0, not point.is_full, point.key

    return _of_each_kind([p for p in points if (c := cost_of(p, cost)) is not None and c <= budget], rank)


def at_level(points: Sequence[Point], axis: Axis, cost: str, level: float) -> list[Point]:
    """The cheapest without and with exits of at least this quality, the cheaper one first."""
    sign = -1.0 if axis.higher_is_better else 1.0

    def rank(point: Point) -> tuple[float, float, bool, str]:
        return cost_of(point, cost) or 0.0, sign * point.reading.value, not point.is_full, point.key

    good = [p for p in points if sign * p.reading.value <= sign * level and cost_of(p, cost) is not None]
    return _of_each_kind(good, rank)


def _of_each_kind(points: Sequence[Point], rank: Callable[[Point], tuple[float, float, bool, str]]) -> list[Point]:
    kinds = ([p for p in points if p.is_full is full] for full in (True, False))
    return sorted((min(found, key=rank) for found in kinds if found), key=rank)


def reading_panel(points: Sequence[Point], axis: Axis, cost: str, lines: Lines) -> Panel:
    """Both sentences."""
    return Panel("reading", partial(_draw, points, axis, cost, lines))


def _draw(points: Sequence[Point], axis: Axis, cost: str, lines: Lines, _: Selection) -> None:
    worst = "at least" if axis.higher_is_better else "at most"
    budget = f"At most **{lines.budget:.{DIGITS}g}** {COSTS[cost]}: best is"
    level = f"{axis.name} of {worst} **{lines.level:.{DIGITS}g}**: cheapest is"
    several = len({p.run for p in points}) > 1
    st.markdown(
        reading_sentence(budget, at_budget(points, axis, cost, lines.budget), axis, cost, "costs so little", several)
    )
    st.markdown(reading_sentence(level, at_level(points, axis, cost, lines.level), axis, cost, "is as good", several))


def reading_sentence(
    start: str,
    found: Sequence[Point],
    axis: Axis,
    cost: str,
    limit: str,  # what the others do not keep
    several: bool = False,  # runs
) -> str:
    """The winner, the best of the other kind, and the difference of their quality with its interval."""
    if not found:
        return f"{start} none of these."
    first, *others = found
    text = f"{start} **{named(first, several)}** ({_values(first, axis, cost)})."
    if not others:
        other = "with exits" if first.is_full else "of the full network"
        return f"{text} None {other} {limit}."
    (second,) = others
    kind = "The full network's" if second.is_full else "With exits"
    return f"{text} {kind}: {named(second, several)} ({_values(second, axis, cost)}). {difference(first, second, axis)}"


def named(point: Point, several: bool) -> str:
    """Family and label, and the run where there are several."""
    return f"{f'{point.run}: ' if several else ''}{point.family}, {point.label}"


def _values(point: Point, axis: Axis, cost: str) -> str:
    return f"{axis.name} {point.reading.value:.3g}, {cost_of(point, cost):.3g} {COSTS[cost]}"


def difference(first: Point, second: Point, axis: Axis) -> str:
    """The difference as a sentence: its interval, whether it is paired, and whether it is inside the noise."""
    found = quality_gap(first, second)
    text = f"Difference of {axis.name}: {_signed(found.value)}"
    if found.low is None or found.high is None:
        return f"{text}, without an interval."
    how = "paired: equal seeds" if found.paired else "unpaired: no difference at equal seeds was measured"
    verdict = "inside the noise" if found.inside_noise else "outside the noise"
    return f"{text} [{_signed(found.low)}, {_signed(found.high)}], {verdict} ({how})."


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")
