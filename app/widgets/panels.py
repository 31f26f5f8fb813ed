"""Panels as data: a page is a list of rows of them over the one shared selection, drawn by `show`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import streamlit as st

from app.state.selection import Selection
from app.widgets.figures import Mark, Spec
from app.widgets.glossary import with_words
from app.widgets.plot import Clicked, Moves, chart, download, download_latex
from deediff.errors import UserError

Need = Callable[[Selection], str | None]  # a sentence about what is missing, or None
Table = Callable[[], pd.DataFrame]
Level = Literal[2, 3]  # of a heading; 1 is the page's title


@dataclass(frozen=True)
class Picture:
    """A figure with its heading."""

    title: str  # the finding
    subtitle: str  # N, and whether it is measured or estimated
    figure: Spec
    table: Table | None = None  # its numbers, for the download
    on_click: Clicked | None = None  # e.g. selects(x="timestep")
    about: str | None = None  # its data, below a saved figure, where they are not those of the selection
    on_move: Moves | None = None  # lines of the figure that can be dragged


@dataclass(frozen=True)
class Panel:
    """One part of a page: its needs, how to read it, and how it is drawn."""

    name: str
    draw: Callable[[Selection], Picture | None]  # None: it has drawn itself, as panels with widgets do
    needs: Sequence[Need] = ()
    help: str = ""  # of a picture: how to read it, and which equation it shows
    question: str = ""  # that it answers, as its heading
    more: tuple[str, str] | None = None  # the page that shows more: its folder in views/, and the link's text


Row = Sequence[tuple[Panel, float]]  # side by side, with their relative widths


def show(
    rows: Sequence[Row | Panel],
    selection: Selection,
    key: str = "panels",
    gap: Literal["small", "medium"] = "small",
    level: Level = 2,  # of the pictures' titles
) -> None:
    """Draw rows of panels; in a narrow window each panel has a row of its own. A failure stays within its panel."""
    with st.container(key=key):
        for row in rows:
            if isinstance(row, Panel):
                with guarded():
                    _show_one(row, selection, level)
                continue
            for column, (panel, _) in zip(st.columns([width for _, width in row], gap=gap), row, strict=True):
                with column, guarded():
                    _show_one(panel, selection, level)


def _show_one(panel: Panel, selection: Selection, level: Level) -> None:
    if panel.question:
        section(panel.question)
        level = 3
    missing = next((sentence for need in panel.needs if (sentence := need(selection)) is not None), None)
    if missing is not None:
        st.info(missing)
    elif (picture := panel.draw(selection)) is not None:
        heading(picture.title, picture.subtitle, panel.help, picture.table, panel.name, level=level)
        more = (picture.on_click, picture.subtitle, picture.about, picture.on_move)
        chart(picture.figure, f"plot {panel.name}", picture.title, *more)
    if panel.more is not None:
        page, label = panel.more
        query = {key: str(value) for key, value in selection.as_link().items() if value is not None}
        st.page_link(f"views/{page}/page.py", label=label, icon=":material/arrow_forward:", query_params=query)


def section(title: str, anchor: str | Literal[False] = False) -> None:
    """The title of a part of a page, above headings of level 3."""
    with st.container(key=f"section {title}"):
        st.header(title, anchor=anchor)


def heading(
    title: str,
    subtitle: str,
    help_text: str,
    table: Table | None = None,
    name: str = "",
    latex: bool = False,
    level: Level = 2,  # 3 below a section
) -> None:
    """A title, its (?) with the words used, and a line with the download of the numbers, of tables also as LaTeX."""
    draw = st.header if level == 2 else st.subheader
    draw(title, anchor=False, help=with_words(help_text, f"{title} · {subtitle}") or None)
    if table is None:
        st.caption(subtitle)
        return
    with st.container(horizontal=True, vertical_alignment="top", key=f"head {name}"):
        st.caption(subtitle, width="stretch")
        download(table, name)
        if latex:
            download_latex(table, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Show an exception as one sentence in place of what failed."""
    try:
        yield
    except UserError as error:
        st.error(str(error))
    except Exception as error:  # a traceback is for the server's log
        logging.getLogger(__name__).exception("a panel failed")
        reason = (str(error).splitlines() or ["no reason given"])[0]
        st.error(f"This panel could not be drawn ({type(error).__name__}: {reason}); see the server's log.")


def needs_trace(selection: Selection) -> str | None:
    """Trace A can be read."""
    return None if selection.trace is not None else "Nothing to draw: the selected trace cannot be read."


def needs_uncertainty(selection: Selection) -> str | None:
    """Trace A holds u."""
    if selection.trace is None:
        return needs_trace(selection)
    if selection.trace.meta.has_uncertainty:
        return None
    return "This trace holds no uncertainties, only exit layers: choose a trace that was sampled with UEMs."


def mark(selection: Selection) -> Mark:
    """The selected timestep and layer, for figures."""
    return Mark(selection.timestep, selection.layer)
