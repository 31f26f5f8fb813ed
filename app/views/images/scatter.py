"""Which samples are hard, and why: two measures of every sample against each other, with a brush."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from scipy.stats import spearmanr

from app.state import link
from app.state.choice import click
from app.state.cohort import choose_cohort
from app.state.selection import Selection
from app.state.traces import damaged_images
from app.widgets import figures, inputs
from app.widgets.formatting import signed
from app.widgets.panels import Panel, heading
from app.widgets.plot import BOX, chart
from app.widgets.samples import ordering
from app.widgets.samples.features import projected
from app.widgets.samples.ordering import ORDERS
from deediff.errors import UserError
from deediff.traces.cohort import Cohort
from deediff.traces.reader import Trace

HELP = (
    "Each point is a sample of trace A. A click selects it; a box drawn around points makes them the cohort: the "
    "figures of all pages then count these samples alone, until *Samples* in the sidebar is emptied. ρ: Spearman's "
    "rank correlation over the samples drawn. Features: the first two principal components of the images in the "
    "features of the metric; images that lie close there are alike to its network."
)
FEWEST = 8  # samples of a correlation
FEATURES = {"feature1": "Features, axis 1", "feature2": "Features, axis 2"}
LABELS = {name: order.label for name, order in ORDERS.items() if name != "sample"} | FEATURES
NO_COLOR = "none"


def scatter_panel(trace: Trace) -> Panel:
    """Two measures of the samples of trace A."""
    return Panel("sample map", partial(_draw, trace))


def _draw(trace: Trace, selected: Selection) -> None:
    x, y, color = _choose_measures(trace)
    axes = dict(LABELS)
    try:
        measures = _measured(trace, [x, y, *[color] * (color != NO_COLOR)], axes)
    except UserError as error:
        st.info(damaged_images(trace) or str(error))
        return
    brush = " · a box selects a cohort" if trace.parts else ""
    subtitle = f"{len(measures):,} samples of {trace.path.name}{brush}"
    seen = color if x in FEATURES and y in FEATURES and color != NO_COLOR else y  # on a map of images, the colour
    title = title_of(rho_of(measures, x, seen), (LABELS[x], LABELS[seen]), len(measures))
    heading(title, subtitle, HELP, lambda: measures.rename_axis("sample").reset_index(), "map")
    figure = _figure(measures, (x, y), axes, selected.sample, color if color != NO_COLOR else None)
    moves = {BOX: choose_cohort} if trace.parts else None  # without rows nothing can be counted
    chart(figure, "plot sample map", f"{axes[y]} against {axes[x]} of each sample", _pick, subtitle, on_move=moves)


def _choose_measures(trace: Trace) -> tuple[str, str, str]:
    """The widgets: both axes, and the colour."""
    label: dict[str, Any] = {"format_func": lambda name: LABELS.get(name, name), "width": 190}
    colors = [NO_COLOR, *(name for name in LABELS if name not in FEATURES)]
    with link.one_step(), st.container(horizontal=True, vertical_alignment="bottom", key="sample_map_controls"):
        x = inputs.selectbox("Horizontal", list(LABELS), "map_x", "exit", **label)
        y = inputs.selectbox("Vertical", list(LABELS), "map_y", "u" if trace.meta.is_full else "change", **label)
        return x, y, inputs.selectbox("Colour", colors, "map_color", NO_COLOR, **label)


def _measured(trace: Trace, names: Sequence[str], axes: dict[str, str]) -> pd.DataFrame:
    """One column per measure, by sample number; adds to the titles of features their share of the variance."""
    found = {}
    if FEATURES.keys() & names:
        numbers, points, shares = projected(trace)
        for name, values, share in zip(FEATURES, points.T, shares, strict=True):
            found[name] = pd.Series(values, index=numbers)
            axes[name] = f"{FEATURES[name]}: {share:.0%} of the variance"
    columns = {name: found[name] if name in FEATURES else ordering.sample_measure(trace, name) for name in names}
    measures = pd.DataFrame(columns).dropna()
    return measures[measures.index.isin(trace.numbers)] if isinstance(trace, Cohort) else measures


def _pick(point: dict[str, Any]) -> None:
    click({"sample": int(point["customdata"])})


def rho_of(measures: pd.DataFrame, x: str, y: str) -> float | None:
    """Spearman's ρ; None for few samples, or where one measure does not vary."""
    if (
        len(measures) < FEWEST
        or x == y
        or FEATURES.keys() >= {x, y}
        or measures[x].nunique() < 2
        or measures[y].nunique() < 2
    ):
        return None
    return float(spearmanr(measures[x], measures[y]).statistic)


def title_of(rho: float | None, axes: tuple[str, ...], count: int) -> str:
    """What the figure shows, in one sentence."""
    if rho is None:
        return f"{axes[1]} against {axes[0].lower()}"
    if abs(rho) < 0.1:
        return f"{axes[1]} hardly depends on {axes[0].lower()}: ρ = {signed(rho, 2)}, N = {count:,}"
    how = "larger" if rho > 0 else "smaller"
    return f"{axes[1]} is {how} where {axes[0].lower()} is larger: ρ = {signed(rho, 2)}, N = {count:,}"


def _figure(
    measures: pd.DataFrame,  # by sample number
    names: tuple[str, str],  # of the columns that are drawn
    axes: Mapping[str, str],  # the titles of all columns
    chosen: int | None,
    color: str | None,  # another column
) -> figures.Spec:
    x, y = names
    hover = f"sample %{{customdata}}<br>{axes[x]} %{{x:.4g}}<br>{axes[y]} %{{y:.4g}}"
    marker: dict[str, Any] = {"color": figures.A, "size": 5, "opacity": 0.6}
    if color is not None:
        bar = {"title": {"text": axes[color], "side": "right"}, "thickness": 12}
        values = figures.packed(measures[color].to_numpy(np.float64))
        marker |= {"color": values, "colorscale": figures.PROBABILITY, "colorbar": bar, "opacity": 0.9, "size": 6}
        hover += f"<br>{axes[color]} %{{marker.color:.4g}}"
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": figures.packed(measures[x].to_numpy(np.float64)),
        "y": figures.packed(measures[y].to_numpy(np.float64)),
        "customdata": [int(number) for number in measures.index],
        "marker": marker,
        "hovertemplate": f"{hover}<extra></extra>",
    }
    data = [points]
    if chosen is not None and chosen in measures.index:
        ring = {"color": "rgba(0,0,0,0)", "size": 13, "line": {"color": figures.B, "width": 2}}
        at = measures.loc[chosen]
        data.append(points | {"x": [float(at[x])], "y": [float(at[y])], "customdata": [chosen], "marker": ring})
    return figures.spec(data, figures.axis(axes[x]), figures.axis(axes[y]), 320, dragmode="select")
