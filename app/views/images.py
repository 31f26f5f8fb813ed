"""Images: what a trace drew, and beside it what another one drew of the same samples."""

from __future__ import annotations

import math

import streamlit as st

import frame
import gallery
from deediff.traces.reader import Trace
from panels import guarded, heading, needs_trace

HELP = (
    "Each image stands above its sample number and its mean exit layer: the smaller that is, the fewer blocks it cost. "
    "Equal sample numbers start from equal noise, so two traces of one seed differ only because of their exits."
)


def show_images(letter: str, trace: Trace, numbers: range) -> None:
    """One page of one trace."""
    found = trace.samples(numbers)
    shown = found[found["png"].notna()]
    mean = f"{found['mean_exit_layer'].mean():.2f} of {trace.num_blocks}" if len(found) else "unknown"
    title = f"Trace {letter}, {trace.meta['policy']}: mean exit layer {mean} on this page"
    heading(title, f"samples {numbers.start} – {numbers.stop - 1} · {trace.path.name}", HELP)
    if shown.empty:
        st.info("This trace holds no images: only exit layers were recorded or imported.")
        return
    tiles = []
    for png, number, mean_exit in zip(shown["png"], shown["sample"], shown["mean_exit_layer"], strict=True):
        hover = f"sample {number}, mean exit layer {mean_exit:.3f}"
        tiles.append(gallery.Tile(png, f"{number} · {mean_exit:.1f}", hover))
    gallery.show(tiles)


def draw() -> None:
    """The page."""
    selected = frame.current()
    if not selected.run.traces:
        frame.no_trace(selected.run.path)
        return
    if (missing := needs_trace(selected)) is not None:
        st.info(missing)
        return
    traces = [(letter, t) for letter, t in (("A", selected.trace), ("B", selected.other)) if t is not None]
    available = max(int(trace.meta["num_samples"]) for _, trace in traces)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        start = 50 if len(traces) == 1 else 20
        size = st.segmented_control("Images per page", [20, 50, 100], default=start, required=True)
        pages = math.ceil(available / size)
        page = st.pagination(pages, key="image page", persist_state="session") if pages > 1 else 1
    numbers = range((page - 1) * size, min(page * size, available))
    if len({trace.meta.get("seed") for _, trace in traces}) > 1:
        st.caption("The two traces have different seeds: equal sample numbers did not start from equal noise.")
    with st.container(key="panels"):
        for column, (letter, trace) in zip(st.columns(len(traces)), traces, strict=True):
            with column, guarded():
                show_images(letter, trace, numbers)


with guarded():
    draw()
