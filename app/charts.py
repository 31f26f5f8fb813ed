"""Figures on screen: drawn without being checked again, clickable, and downloadable with their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import streamlit as st
from plotly.basedatatypes import BaseFigure

import selection

PLOT_CONFIG: dict[str, Any] = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}
FORMATS = ("svg", "png")

Point = dict[str, Any]  # what Streamlit tells about a clicked point: x, y, customdata, curve_number, …
Clicked = Callable[[Point], None]


class _Unchecked(BaseFigure):
    """A figure's JSON in the clothes that `st.plotly_chart` takes without checking every attribute (60 ms)."""

    def __init__(self, spec: dict[str, Any]):
        object.__setattr__(self, "spec", spec)

    def to_dict(self) -> dict[str, Any]:
        return self.spec


def chart(figure: dict[str, Any] | go.Figure, key: str, alt: str, on_click: Clicked | None = None) -> None:
    """Draw a figure. A click on a point calls `on_click` before the next run of the script."""
    shown = _Unchecked(figure) if isinstance(figure, dict) else figure
    if on_click is None:
        st.plotly_chart(shown, key=key, config=plot_config(key), alt=alt)
        return

    def clicked() -> None:
        for point in st.session_state[key]["selection"]["points"][:1]:
            on_click(point)

    st.plotly_chart(
        shown, key=key, config=plot_config(key), alt=alt, on_select=clicked, selection_mode="points"
    )  # fmt: skip


def selects(x: str | None = None, y: str | None = None) -> Clicked:
    """For clicks: what a point's x and y choose, e.g. `selects(x="timestep", y="layer")`."""

    def choose(point: Point) -> None:
        selection.select(**{name: round(point[axis]) for axis, name in (("x", x), ("y", y)) if name is not None})

    return choose


def plot_config(name: str) -> dict[str, Any]:
    """Plotly's settings; its camera saves the figure under this name, as SVG or PNG."""
    kind = st.session_state.get("figure format", FORMATS[0])
    image = {"format": kind, "filename": "-".join(name.split()), "scale": 2 if kind == "png" else 1}
    return {**PLOT_CONFIG, "toImageButtonOptions": image}


def choose_format() -> None:
    """What the camera of every figure saves."""
    st.segmented_control(
        "Figures download as", FORMATS, default=FORMATS[0], required=True, format_func=str.upper, key="figure format",
        help="The camera that appears when the mouse is on a figure saves it; the arrow beside its title, its numbers.",
    )  # fmt: skip


def download(table: Callable[[], Any], name: str) -> None:
    """A small button that hands out a data frame as CSV, made only when it is pressed."""
    st.download_button(
        "CSV", lambda: table().to_csv(index=False).encode(), f"{'-'.join(name.split())}.csv", "text/csv",
        key=f"csv {name}", on_click="ignore", type="tertiary", icon=":material/download:",
        help="The exact numbers behind this picture.",
    )  # fmt: skip
