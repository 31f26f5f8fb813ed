"""One page of a trace's images, and the widgets that choose it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.state import link
from app.state.classes import class_of
from app.state.selection import Selection, select
from app.state.traces import why_no_images
from app.widgets import gallery, inputs
from app.widgets.films.player import Pair, wipe_images
from app.widgets.panels import Panel, heading
from app.widgets.samples import ordering
from app.widgets.samples.ordering import ORDERS
from deediff.errors import UserError
from deediff.traces.cohort import Cohort
from deediff.traces.reader import Trace

OPEN = "open sample"  # session state: a click opens the page *Sample*
PROBLEM = "image problem"  # session state: why the images are not sorted as chosen
WIPED = 6  # pairs beside each other
HELP = (
    "Below each image are its sample number and the measure it is sorted by, or its mean exit layer: the smaller that "
    "is, the fewer blocks were run. Equal sample numbers of traces with equal settings start from equal noise, so "
    "their images differ only because of their exits. Click an image to open it."
)


def choose_samples(trace: Trace, other: Trace | None) -> tuple[str, list[int], list[int]]:
    """Order, images per page, page; returns the measure, and the page's sample numbers of A and of B.

    They are the same, unless B is another cohort of the same trace.
    """
    bar = st.container(horizontal=True, vertical_alignment="bottom", key="image_controls")
    with bar, link.one_step():
        name, reverse = ordering.choose_order()
        size = inputs.segmented_control("Images per page", [20, 50, 100, 200], "size", 50)
        try:
            order = ordering.sorted_samples(trace, name, reverse)
        except UserError as error:
            st.session_state[PROBLEM] = f"Sorted by number instead: {error}"
            name, order = "sample", ordering.sorted_samples(trace, "sample", reverse)
        order = _with_image(trace, order)
        orders = [_counted(trace, order), _counted(other, order) if splits(trace, other) else order[:0]]
        pages = math.ceil(max(map(len, orders)) / size)
        page = inputs.pagination(pages, "page") if pages > 1 else 1
    a, b = ([int(number) for number in order[(page - 1) * size : page * size]] for order in orders)
    return name, a, b if splits(trace, other) else a


def splits(trace: Trace, other: Trace | None) -> bool:
    """Whether B holds other samples of the same trace."""
    return other is not None and other.path == trace.path


def _counted(trace: Trace | None, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of these samples that the trace is limited to."""
    return numbers[np.isin(numbers, trace.numbers)] if isinstance(trace, Cohort) else numbers


def _with_image(trace: Trace, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of these samples whose images came with the trace; all of them where none did."""
    if not trace.image_parts:
        return numbers
    return numbers[np.isin(numbers, ordering.sample_measure(trace, "exit").index)]


def grid_panel(letter: str, trace: Trace, numbers: list[int], name: str) -> Panel:
    """These samples of one trace."""
    return Panel(f"images {letter}", partial(_draw_grid, letter, trace, numbers, name))


def _draw_grid(letter: str, trace: Trace, numbers: list[int], name: str, selected: Selection) -> None:
    found = trace.samples(numbers).set_index("sample").reindex(numbers).reset_index()
    shown = found[found["png"].notna()]
    values = _values(trace, name)
    mean = f"{found['mean_exit_layer'].mean():.2f} of {trace.num_blocks}" if len(found) else "unknown"
    title = f"Trace {letter}, {trace.meta.title}: mean exit layer {mean} on this page"
    subtitle = f"{len(shown)} images, sorted by {ORDERS[name].label.lower()} · {trace.path.name}{_missing(trace)}"
    heading(title, subtitle, HELP, partial(_table, found, values, name), f"images {letter}")
    if shown.empty:
        st.info(why_no_images(trace))
        return
    tiles = []
    for number, mean_exit, png in zip(shown["sample"], shown["mean_exit_layer"], shown["png"], strict=True):
        hover, caption = f"sample {number}, mean exit layer {mean_exit:.3f}", f"{number} · {mean_exit:.1f}"
        if (name_of_class := class_of(trace, int(number))) is not None:
            hover, caption = f"{hover}, class {name_of_class}", f"{caption} · {name_of_class}"
        if values is not None and number in values.index:
            value = ORDERS[name].text.format(values[number])
            hover, caption = f"{hover}, {ORDERS[name].label} {value}", f"{number} · {value}"
        tiles.append(gallery.Tile(png, caption, hover, number=int(number)))
    gallery.gallery(f"images {letter}", tiles, chosen=selected.sample, on_pick=_open)


def wipe_panel(numbers: list[int]) -> Panel:
    """These samples of A and B under one divider."""
    return Panel("images wiped", partial(_draw_wipe, numbers))


def _draw_wipe(numbers: list[int], selected: Selection) -> None:
    a, b = selected.trace, selected.other
    assert a is not None
    assert b is not None
    found = [trace.samples(numbers).set_index("sample")["png"].dropna() for trace in (a, b)]
    both = [number for number in numbers if all(number in pngs.index for pngs in found)]
    heading("The same samples of A and B under one divider", f"{len(both)} samples whose images both hold", HELP)
    if not both:
        st.info("No sample of this page has an image in both traces.")
        return
    pairs = [Pair(found[0][number], found[1][number], str(number)) for number in both]
    wipe_images("images wipe", (a.meta.title, b.meta.title), pairs, WIPED)


def _table(found: pd.DataFrame, values: pd.Series | None, name: str) -> pd.DataFrame:
    columns = found[["sample", "mean_exit_layer"]]
    return columns if values is None else columns.assign(**{name: values.reindex(columns["sample"]).to_numpy()})


def _missing(trace: Trace) -> str:
    """How many of its images came with the trace, if not all."""
    total = trace.meta.num_samples
    found = len(_with_image(trace, np.arange(total)))
    return f" · {found:,} of its {total:,} images are here" if found < total else ""


def _values(trace: Trace, name: str) -> pd.Series | None:
    """The measure to print under the images, unless it is printed anyway."""
    if name in ("sample", "exit"):
        return None
    try:
        return ordering.sample_measure(trace, name)
    except UserError:
        return None


def _open(number: int) -> None:
    select(sample=number)
    st.session_state[OPEN] = True
