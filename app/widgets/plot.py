"""Figures on screen: updated in place, clickable, and downloadable with their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from app.state import selection, shown
from app.state.shown import Shown
from app.widgets.figures import Spec

_FOLDER = Path(__file__).parent
_mount = st.components.v2.component(
    "plot",
    html='<div class="plot"></div>',
    css=(_FOLDER / "plot.css").read_text(encoding="utf-8"),
    js="\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("plot.js", "save.js")),
    isolate_styles=False,
)

Point = dict[str, Any]  # a clicked point or cell: x, y and customdata
Clicked = Callable[[Point], None]
Moves = Mapping[str, Callable[[Any], None]]  # by the name of a line among the shapes, vertical or horizontal; or BOX
BOX = "box"  # a box drawn around points


def chart(
    figure: Spec,
    key: str,
    alt: str,
    on_click: Clicked | None = None,
    caption: str = "",
    about: str | None = None,  # the data that are drawn; the selection's where not given
    on_move: Moves | None = None,
) -> None:
    """Draw a figure. A click on a point or a cell calls `on_click` before the next run of the script, and so does
    `on_move` with the position where a line was dragged, or with the customdata of the points in a box.

    The mode bar saves it as SVG, PNG or PDF, at the width of a paper's column or of the screen, under its key without
    “plot”: in the light theme, without the marks of the selection, with a line below it (`about`, then `caption`).
    """

    def clicked() -> None:
        if on_click is not None and (point := st.session_state[key].get("point")):
            on_click(point)

    def moved() -> None:
        if on_move is not None and (line := st.session_state[key].get("moved")):
            on_move[line["name"]](float(line["position"]))

    def brushed() -> None:
        if on_move is not None and (numbers := st.session_state[key].get("brushed")):
            on_move[BOX]([int(number) for number in numbers])

    line = " · ".join(filter(None, [selection.current().describe() if about is None else about, caption]))
    shown.add(key, Shown(alt, line, figure))
    content = {
        "figure": figure,
        "alt": alt,
        "caption": line,
        "name": _file(key.removeprefix("plot ")),
        "clickable": on_click is not None,
        "lines": [name for name in on_move or () if name != BOX],
    }
    _mount(key=key, data=content, on_point_change=clicked, on_moved_change=moved, on_brushed_change=brushed)


def selects(x: str | None = None, y: str | None = None) -> Clicked:
    """A click that selects the point's x and y, e.g. `selects(x="timestep", y="layer")`."""

    def choose(point: Point) -> None:
        selection.select(**{name: round(point[axis]) for axis, name in (("x", x), ("y", y)) if name is not None})

    return choose


def download(table: Callable[[], Any], name: str) -> None:
    """A small button that downloads a data frame as CSV, which is made when it is pressed."""
    st.download_button(
        "CSV",
        lambda: table().to_csv(index=False).encode(),
        f"{_file(name)}.csv",
        "text/csv",
        key=f"csv {name}",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
        help="The numbers of this figure.",
    )


def download_latex(table: Callable[[], Any], name: str) -> None:
    """A small button that downloads a data frame as a LaTeX table (booktabs)."""
    st.download_button(
        "LaTeX",
        lambda: table().to_latex(index=False, escape=True, float_format="%.4g", na_rep="--").encode(),
        f"{_file(name)}.tex",
        "text/x-tex",
        key=f"latex {name}",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
        help="The table for a paper; needs the package booktabs.",
    )


def _file(name: str) -> str:
    return "-".join(name.split())
