"""The same samples of every picked trace, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from app.state.selection import Selection, select, select_trace
from app.state.traces import key_of, why_no_images
from app.views.compare.choices import PICKED
from app.views.compare.points import other_differences
from app.widgets import gallery
from app.widgets.panels import Panel, heading
from deediff.traces.reader import Trace

COLUMNS = 12  # images side by side
HELP = (
    "Equal columns are equal sample numbers. Traces of one solver, step count, seed and checkpoint start there from "
    "the same noise, so differences within a column are due to the exits."
)


def images_panel(traces: Sequence[Trace]) -> Panel:
    """The picked ones of these traces."""
    return Panel("compared images", partial(_draw_images, traces))


def _draw_images(traces: Sequence[Trace], selected: Selection) -> None:
    by_key = {key_of(trace): trace for trace in traces}
    picked = [by_key[key] for key in st.session_state[PICKED] if key in by_key]
    number = f"{len(picked)} {'trace' if len(picked) == 1 else 'traces'}"
    title = f"The same seeds in {number}" if picked else "Images"
    heading(title, "one row per picked trace · under each image its mean exit layer", HELP)
    if not picked:
        st.info("Click marks above, or tick rows of the table, to see their images here.")
        return
    if sentence := other_differences(picked):
        st.caption(sentence)
    fewest = min(trace.meta.num_samples for trace in picked)
    start = min((selected.sample or 0) // COLUMNS, (fewest - 1) // COLUMNS) * COLUMNS
    numbers = range(start, min(start + COLUMNS, fewest))
    with st.container(gap="xxsmall"):
        for trace in picked:
            _draw_row(trace, numbers, selected)


def _draw_row(trace: Trace, numbers: range, selected: Selection) -> None:
    letters = ["A"]
    if trace.path.parents[1] == selected.run.path and trace.path != (selected.trace and selected.trace.path):
        letters.append("B")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f"**{trace.meta.title}** · {key_of(trace)}", width="content")
        for letter in letters:
            st.button(
                letter,
                key=f"{letter} {key_of(trace)}",
                type="tertiary",
                on_click=select_trace,
                args=(trace, letter),
                help=f"Show this trace as {letter} on every page.",
            )
    found = trace.samples(numbers)
    tiles = [
        gallery.Tile(png, f"{number} · {mean:.1f}", f"sample {number}, mean exit layer {mean:.3f}", number=int(number))
        for number, mean, png in zip(found["sample"], found["mean_exit_layer"], found["png"], strict=True)
        if png is not None
    ]
    if not tiles:
        st.caption(why_no_images(trace))
        return
    key = f"compare {key_of(trace)}"
    gallery.gallery(key, tiles, COLUMNS, chosen=selected.sample, on_pick=lambda k: select(sample=k))
