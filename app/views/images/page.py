"""Images: what a trace drew, sorted by what one is looking for, and beside it what another one drew of the same."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.state import link, selection
from app.state.selection import current
from app.widgets import gallery, inputs, ordering
from app.widgets.empty import no_trace
from app.widgets.ordering import ORDERS
from app.widgets.panels import guarded, heading, needs_trace
from deediff.errors import UserError
from deediff.traces.reader import Trace

HELP = (
    "Each image stands above its sample number and the measure that it is sorted by, or its mean exit layer: the "
    "smaller that is, the fewer blocks it cost. Equal sample numbers start from equal noise, so two traces of one seed "
    "differ only because of their exits. Click an image to see how it came about."
)


def draw_controls(trace: Trace) -> tuple[str, list[int]]:
    """What to sort by, how many and which page; returns the measure and the page's sample numbers."""
    bar = st.container(horizontal=True, vertical_alignment="bottom", key="image_controls")
    with bar, link.at_once():
        name, reverse = ordering.choose()
        size = inputs.segmented_control("Images per page", [20, 50, 100, 200], "size", 50)
        try:
            order = ordering.in_order(trace, name, reverse)
        except UserError as error:
            st.session_state["image problem"] = f"Sorted by number instead: {error}"
            name, order = "sample", ordering.in_order(trace, "sample", reverse)
        order = here(trace, order)
        pages = math.ceil(len(order) / size)
        page = inputs.pagination(pages, "page") if pages > 1 else 1
    return name, [int(number) for number in order[(page - 1) * size : page * size]]


def here(trace: Trace, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of these samples whose images came with the trace; all where none did, which is said below."""
    if not trace.image_parts:
        return numbers
    return numbers[np.isin(numbers, ordering.measured(trace, "exit").index)]


def show_images(letter: str, trace: Trace, numbers: list[int], name: str, chosen: int | None) -> None:
    """One page of one trace."""
    found = trace.samples(numbers).set_index("sample").reindex(numbers).reset_index()
    shown = found[found["png"].notna()]
    values = _values(trace, name)
    mean = f"{found['mean_exit_layer'].mean():.2f} of {trace.num_blocks}" if len(found) else "unknown"
    title = f"Trace {letter}, {trace.meta.policy}: mean exit layer {mean} on this page"
    sorting = f"sorted by {ORDERS[name].label.lower()}"

    def table() -> pd.DataFrame:
        columns = found[["sample", "mean_exit_layer"]]
        return columns if values is None else columns.assign(**{name: values.reindex(columns["sample"]).to_numpy()})

    heading(
        title, f"{len(shown)} images, {sorting} · {trace.path.name}{_left_out(trace)}", HELP, table, f"images {letter}"
    )
    if shown.empty:
        st.info("No image of these samples is here: they were not recorded, or not copied with the trace.")
        return
    tiles = []
    for number, mean_exit, png in zip(shown["sample"], shown["mean_exit_layer"], shown["png"], strict=True):
        hover, caption = f"sample {number}, mean exit layer {mean_exit:.3f}", f"{number} · {mean_exit:.1f}"
        if values is not None and number in values.index:
            value = ORDERS[name].text.format(values[number])
            hover, caption = f"{hover}, {ORDERS[name].label} {value}", f"{number} · {value}"
        tiles.append(gallery.Tile(png, caption, hover, number=int(number)))
    gallery.show(f"images {letter}", tiles, chosen=chosen, on_pick=_open)


def _left_out(trace: Trace) -> str:
    """How many of its images came with the trace, where some did not."""
    total = trace.meta.num_samples
    found = len(here(trace, np.arange(total)))
    return f" · {found:,} of its {total:,} images are here" if found < total else ""


def _values(trace: Trace, name: str) -> pd.Series | None:
    """The measure to print under the images, where it says more than the number and the exit layer do."""
    if name in ("sample", "exit"):
        return None
    try:
        return ordering.measured(trace, name)
    except UserError:
        return None


def _open(number: int) -> None:
    selection.select(sample=number)
    st.session_state["open sample"] = True


def draw() -> None:
    """The page."""
    if st.session_state.pop("open sample", False):
        link.open_page("views/sample/page.py")
    selected = current()
    if not selected.run.traces:
        no_trace(selected.run)
        return
    if (missing := needs_trace(selected)) is not None:
        st.info(missing)
        return
    traces = [(letter, t) for letter, t in (("A", selected.trace), ("B", selected.other)) if t is not None]
    name, numbers = draw_controls(traces[0][1])
    if problem := st.session_state.pop("image problem", None):
        st.info(problem)
    if len({trace.meta.seed for _, trace in traces}) > 1:
        st.caption("The two traces have different seeds: equal sample numbers did not start from equal noise.")
    with st.container(key="panels"):
        for column, (letter, trace) in zip(st.columns(len(traces)), traces, strict=True):
            with column, guarded():
                show_images(letter, trace, numbers, name, selected.sample)


with guarded():
    draw()
