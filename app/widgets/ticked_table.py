"""Tables whose ticked rows are a list of names in the session, which other widgets may change as well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app.state import link
from app.state.choice import resolve_names
from deediff.analysis.compare import COLUMNS

DIGITS = {
    "layer_ratio": "%.4f",
    "gflops_per_step": "%.4f",
    "gflops_per_step_without_attention": "%.4f",
    "gflops_per_image": "%.4f",
    "seconds_per_image": "%.4f",
    "speed_up": "%.3f",
    "efficiency": "%.3f",
    "image_change": "%.3f",
    "megabytes": "%.2f",
    "parameters": "localized",
    "images_seen": "localized",
    "last_loss": "%.4g",
}
# Of another unit than the screen's: in the downloads, and on screen by the table's own menu.
HIDDEN = ("gflops_per_step", "gflops_per_step_without_attention", "published_gflops_per_step_without_attention")
MEANINGS = COLUMNS | {
    "megabytes": "on disk",
    "written": "last, in the time zone of the server; the newest first",
    "images_seen": "during training, including that of the initial weights",
    "last_loss": "total loss (Eq. 9) at the last logged step",
}


def ticked_table(key: str, table: pd.DataFrame, names: Sequence[str], ticked: str) -> None:
    """Draw a table; `names` are those of its rows, and `ticked` the session key that lists the ticked ones.

    Ticked names that are not in the table, such as those hidden by a filter, stay ticked.
    """

    def take() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        hidden = [name for name in st.session_state[ticked] if name not in names]
        st.session_state[ticked] = hidden + [names[row] for row in sorted(rows)]

    rows = [row for row, name in enumerate(names) if name in st.session_state[ticked]]
    st.session_state[key] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    st.dataframe(
        table,
        hide_index=True,
        key=key,
        selection_mode="multi-row",
        on_select=take,
        placeholder="–",
        column_config={name: None if name in HIDDEN else _column(name, table) for name in table},
    )


def ticked_names(ticked: str, names: Sequence[str], what: str, default: Sequence[str] = ()) -> list[str]:
    """The ticked ones of these names, which are written into the URL."""
    st.session_state[ticked] = resolve_names(ticked, default, names, what)
    link.write({ticked: link.joined(st.session_state[ticked])})
    return st.session_state[ticked]


def _column(name: str, table: pd.DataFrame) -> Any:
    """Format and meaning of a column."""
    if pd.api.types.is_bool_dtype(table[name]) or not pd.api.types.is_numeric_dtype(table[name]):
        return st.column_config.Column(help=MEANINGS.get(name))
    whole = pd.api.types.is_integer_dtype(table[name])
    return st.column_config.NumberColumn(help=MEANINGS.get(name), format=DIGITS.get(name, "%d" if whole else "%.4g"))
