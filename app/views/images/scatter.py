"""Which samples are hard, and why: two measures of every sample against each other, with a brush."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from scipy.stats import spearmanr

from app.state.choice import click
from app.state.cohort import choose_cohort
from app.state.selection import Selection
from app.widgets import figures, inputs
from app.widgets.formatting import signed
from app.widgets.panels import Panel, heading
from app.widgets.plot import BOX, chart
from app.widgets.samples import ordering
from app.widgets.samples.ordering import ORDERS
from deediff.errors import UserError
from deediff.traces.cohort import Cohort
from deediff.traces.reader import Trace

HELP = (
    "Each point is a sample of trace A. A click selects it; a box drawn around points makes them the cohort: the "
    "figures of all pages then count these samples alone, until *Samples* in the sidebar is emptied. ρ: Spearman's "
    "rank correlation over the samples drawn."
)
FEWEST = 8  # samples of a correlation


def scatter_panel(trace: Trace) -> Panel:
    """Two measures of the samples of trace A."""
    return Panel("sample map", partial(_draw, trace))


def _draw(trace: Trace, selected: Selection) -> None:
    names = [name for name in ORDERS if name != "sample"]
    label: dict[str, Any] = {"format_func": lambda name: ORDERS[name].label, "width": 190}
    with st.container(horizontal=True, vertical_alignment="bottom", key="sample_map_controls"):
        x = inputs.selectbox("Horizontal", names, "map_x", "exit", **label)
        y = inputs.selectbox("Vertical", names, "map_y", "u" if trace.meta.is_full else "change", **label)
    try:
        measures = pd.DataFrame({name: ordering.sample_measure(trace, name) for name in (x, y)}).dropna()
    except UserError as error:
        st.info(f"{error}")
        return
    if isinstance(trace, Cohort):
        measures = measures[measures.index.isin(trace.numbers)]
    axes = tuple(ORDERS[name].label for name in (x, y))
    rho = rho_of(measures, x, y)
    subtitle = f"{len(measures):,} samples of {trace.path.name} · a box selects a cohort"
    heading(
        title_of(rho, axes, len(measures)), subtitle, HELP, lambda: measures.rename_axis("sample").reset_index(), "map"
    )
    figure = _figure(measures, (x, y), axes, selected.sample)
    chart(
        figure,
        "plot sample map",
        f"{axes[1]} against {axes[0]} of each sample",
        _pick,
        subtitle,
        on_move={BOX: choose_cohort},
    )


def _pick(point: dict[str, Any]) -> None:
    click({"sample": int(point["customdata"])})


def rho_of(measures: pd.DataFrame, x: str, y: str) -> float | None:
    """Spearman's ρ; None for few samples, or where one measure does not vary."""
    if len(measures) < FEWEST or x == y or measures[x].nunique() < 2 or measures[y].nunique() < 2:
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


def _figure(measures: pd.DataFrame, names: tuple[str, str], axes: tuple[str, ...], chosen: int | None) -> figures.Spec:
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": figures.packed(measures[names[0]].to_numpy(np.float64)),
        "y": figures.packed(measures[names[1]].to_numpy(np.float64)),
        "customdata": [int(number) for number in measures.index],
        "marker": {"color": figures.A, "size": 5, "opacity": 0.6},
        "hovertemplate": f"sample %{{customdata}}<br>{axes[0]} %{{x:.4g}}<br>{axes[1]} %{{y:.4g}}<extra></extra>",
    }
    data = [points]
    if chosen is not None and chosen in measures.index:
        ring = {"color": "rgba(0,0,0,0)", "size": 13, "line": {"color": figures.B, "width": 2}}
        at = measures.loc[chosen]
        data.append(
            points | {"x": [float(at[names[0]])], "y": [float(at[names[1]])], "customdata": [chosen], "marker": ring}
        )
    return figures.spec(data, figures.axis(axes[0]), figures.axis(axes[1]), 320, dragmode="select")
