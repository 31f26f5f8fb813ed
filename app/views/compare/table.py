"""The traces as a table: filtered, sorted, ticked, exported."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from app.state import link
from app.state.selection import Selection
from app.state.traces import key_of, read_qualities
from app.views.compare.changes import known_change
from app.views.compare.choices import PICKED
from app.views.compare.filter import filtered, ordered
from app.widgets import inputs, plot
from app.widgets.panels import Panel, heading
from app.widgets.ticked_table import ticked_table
from deediff.analysis.compare import comparison_table
from deediff.traces.reader import Trace

UNSORTED = "run and name"  # option instead of a column to sort by
WORDY = ("model", "uem", "strategy", "losses", "device", "quality_protocol")  # columns at the end
HELP = (
    "GFLOPs are per image; columns per step are in the downloads. Efficiency is the speed-up divided by the ratio of "
    "GFLOPs; the change is in grey levels from the full network's images. The filter takes words and comparisons such "
    "as `gflops_per_image<15`. Filter and order are in the link; a click on a column's head sorts on this screen only."
)


def table_panel(traces: Sequence[Trace]) -> Panel:
    """All columns of these traces."""
    return Panel("comparison", partial(_draw_table, traces))


def _table_of(traces: Sequence[Trace]) -> pd.DataFrame:
    """The comparison table with the run's name as first column."""
    quality = read_qualities(traces, [])  # damaged files are reported above
    table = comparison_table(list(traces), known_change, lambda trace: quality[key_of(trace)])
    table.insert(0, "run", [trace.path.parents[1].name for trace in traces])
    last = [name for name in WORDY if name in table]
    return table[[name for name in table if name not in last] + last]


def _draw_table(traces: Sequence[Trace], selected: Selection) -> None:
    table = _table_of(traces)
    heading(f"All values of {len(table)} traces", "ticked rows are picked", HELP)
    bar = st.container(horizontal=True, vertical_alignment="bottom")
    with bar, link.one_step():
        question = inputs.text_input(
            "Filter", "filter", placeholder="threshold ddim gflops_per_image<15", width="stretch"
        )
        column = inputs.selectbox("Sort by", [UNSORTED, *table], "sort", width=240)
        falling = inputs.toggle("Largest first", "falling", False)
    if column != UNSORTED:
        table = ordered(table, column, falling)
    try:
        table = filtered(table, question)
    except ValueError as error:
        st.warning(str(error))
    with bar:
        for download in (plot.download, plot.download_latex):
            download(lambda: table.replace("\n", " · ", regex=True), "comparison")
    keys = [f"{run}/{trace}" for run, trace in zip(table["run"], table["trace"], strict=True)]
    ticked_table("compare table", table, keys, PICKED)
