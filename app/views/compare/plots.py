"""Cost against quality: of the traces here, and as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import pandas as pd
import streamlit as st

from app.state.selection import Selection
from app.state.traces import key_of
from app.views.compare.choices import PICKED, toggle_pick
from app.views.compare.figures.cost_quality import Marked, cost_quality
from app.views.compare.figures.published import published_gflops, published_seconds
from app.views.compare.front import front
from app.views.compare.points import Axis, Point, cost_of, far_above
from app.views.compare.reading import Lines, moves
from app.widgets.panels import Panel, Picture
from deediff.analysis.published import FULL, NOTE, SECONDS, SECONDS_NOTE, TABLES

HELP = (
    "Each mark is one trace, or one validated plan; lines join those of one policy, labelled by threshold, budget or "
    "steps; bars are 95 % intervals, the grey band is the value of as many real images. The wide lines are the Pareto "
    "fronts of the full network and with exits: a cheaper one is not better, nor is the difference inside the noise. "
    "The dashed lines are read below; drag them, or type their positions above. A click on the mark of a trace shows "
    "its images, and hides them again."
)
PUBLISHED_HELP = (
    "In a figure of their own because their extractor or protocol is not that of any trace here: compare shapes, not "
    "values. Their GFLOPs, given per step, are multiplied by the 1 000 steps. Circles are MLPs per layer, squares per "
    "timestep, diamonds per layer and timestep, triangles attention probes."
)


def plot_panel(shown: Sequence[Point], axis: Axis, cost: str, lines: Lines | None) -> Panel:
    """What the axis measures; `cost` is gflops or seconds."""
    return Panel("compare", partial(_plot, shown, axis, cost, lines), help=HELP)


def _plot(shown: Sequence[Point], axis: Axis, cost: str, lines: Lines | None, selected: Selection) -> Picture:
    costed = [p for p in shown if cost_of(p, cost) is not None]
    best = front(costed, axis, cost)
    fronts = [front([p for p in costed if p.is_full is full], axis, cost) for full in (True, False)]
    what = "plans" if axis.of_plans else "traces"
    letters = {key_of(t): letter for t, letter in ((selected.other, "B"), (selected.trace, "A")) if t is not None}
    title = f"{len(best)} of {len(costed)} {what} are on the Pareto front" if shown else "Nothing to compare"
    subtitle = axis.label
    if missing := len(shown) - len(costed):
        subtitle += f" · {missing} without measured seconds"
    if beyond := far_above(costed):
        subtitle += " · far above: " + ", ".join(f"{p.label} ({p.reading.value:.3g})" for p in beyond)
    marked = Marked(letters, st.session_state[PICKED], lines)
    figure = cost_quality(costed, fronts, axis, cost, marked)
    about = f"runs {', '.join(sorted({p.run for p in costed}))}"
    on_click = None if axis.of_plans else toggle_pick
    on_move = moves(axis, cost) if lines is not None else None
    return Picture(title, subtitle, figure, partial(_plot_table, shown, axis), on_click, about, on_move)


def _plot_table(shown: Sequence[Point], axis: Axis) -> pd.DataFrame:
    rows = [vars(p) | vars(p.reading) for p in shown]
    table = pd.DataFrame(rows).drop(columns=["reading", "quality", "paired"])
    return table.rename(columns={"key": "trace", "family": "policy", "value": axis.name})


def published_panel(cost: str) -> Panel:
    """Published results."""
    help_text = PUBLISHED_HELP if cost == "seconds" else f"{PUBLISHED_HELP} {NOTE}."
    return Panel("published", partial(_published, cost), help=help_text)


def _published(cost: str, selected: Selection) -> Picture:
    if cost == "seconds":
        title = "Published seconds, with other FIDs"
        return Picture(title, SECONDS_NOTE, published_seconds(SECONDS), _seconds_table, about="")
    title = "Published results, with other FIDs"
    return Picture(title, "hollow marks: published numbers", published_gflops(FULL, TABLES), _published_table, about="")


def _published_table() -> pd.DataFrame:
    """The blog's lines."""
    rows = [
        {"uem": uem, "strategy": strategy, "losses": losses, "threshold": tau, **asdict(line)}
        for (uem, strategy, losses, tau), line in TABLES.items()
    ]
    return pd.DataFrame([asdict(FULL), *rows])


def _seconds_table() -> pd.DataFrame:
    """DuoDiff's pairs."""
    rows = [(name, fid, seconds) for name, pairs in SECONDS.items() for fid, seconds in pairs]
    return pd.DataFrame(rows, columns=["policy", "fid", "seconds_per_image"])
