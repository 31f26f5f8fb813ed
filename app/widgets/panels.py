"""Panels as data: a page is a list of them over the one shared selection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from app.state.selection import Selection
from app.widgets.figures import Mark, Spec
from app.widgets.plot import Clicked, chart, download, selects
from deediff.errors import UserError

__all__ = ["Panel", "Picture", "guarded", "heading", "needs_trace", "needs_uncertainty", "selects", "show"]


@dataclass(frozen=True)
class Picture:
    """What a panel draws."""

    title: str  # what one sees
    subtitle: str  # N, and whether it is measured or estimated
    figure: Spec
    table: Callable[[], pd.DataFrame] | None = None  # its numbers, for the download
    on_click: Clicked | None = None  # what a click on a point does: selects(…), mostly


@dataclass(frozen=True)
class Panel:
    """One picture: what it needs of the selection, how to read it, and how it is drawn."""

    name: str
    needs: Sequence[Callable[[Selection], str | None]]  # each says what is missing, or None
    help: str  # two sentences: how to read it, which equation
    draw: Callable[[Selection], Picture]


def show(rows: Sequence[Sequence[tuple[Panel, float]]], selection: Selection, key: str = "panels") -> None:
    """Rows of panels with their relative widths; on a narrow window each panel has a row of its own."""
    with st.container(key=key):
        for row in rows:
            for column, (panel, _) in zip(st.columns([width for _, width in row]), row, strict=True):
                with column, guarded():
                    _show_one(panel, selection)


def _show_one(panel: Panel, selection: Selection) -> None:
    for need in panel.needs:
        if (missing := need(selection)) is not None:
            st.info(missing)
            return
    picture = panel.draw(selection)
    heading(picture.title, picture.subtitle, panel.help, picture.table, panel.name)
    chart(picture.figure, f"plot {panel.name}", picture.title, picture.on_click)


def heading(
    title: str, subtitle: str, help_text: str, table: Callable[[], pd.DataFrame] | None = None, name: str = ""
) -> None:
    """A panel's title with its (?), and the line under it, with the download of its numbers."""
    st.markdown(f"**{title}**", help=help_text)
    if table is None:
        st.caption(subtitle)
        return
    with st.container(horizontal=True, vertical_alignment="top", key=f"head {name}"):
        st.caption(subtitle, width="stretch")
        download(table, name)


@contextmanager
def guarded() -> Iterator[None]:
    """Whatever goes wrong inside becomes one sentence, and the rest of the page stays."""
    try:
        yield
    except UserError as error:
        st.error(str(error))
    except Exception as error:  # a traceback belongs in the server's log, never on a reader's screen
        logging.getLogger(__name__).exception("a panel failed")
        reason = (str(error).splitlines() or ["no reason given"])[0]
        st.error(f"This panel could not be drawn ({type(error).__name__}: {reason}). The server's log says more.")


def needs_trace(selection: Selection) -> str | None:
    """A trace is selected and readable."""
    return None if selection.trace is not None else "Nothing to draw: the selected trace cannot be read."


def needs_uncertainty(selection: Selection) -> str | None:
    """Trace A recorded u."""
    if selection.trace is None:
        return needs_trace(selection)
    if selection.trace.meta.has_uncertainty:
        return None
    return "This trace holds no uncertainties, only exit layers: choose a trace that was sampled with UEMs."


def mark(selection: Selection) -> Mark:
    """What is selected, for the figures."""
    return Mark(selection.timestep, selection.layer)
