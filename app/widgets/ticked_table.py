"""Tables whose ticked rows are a list of names in the session, whoever else changes that list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app.state import link
from deediff.analysis.compare import COLUMNS

DIGITS = {
    "layer_ratio": "%.4f", "gflops_per_step": "%.4f", "gflops_per_step_without_attention": "%.4f",
    "gflops_per_image": "%.4f", "seconds_per_image": "%.4f", "speed_up": "%.3f", "efficiency": "%.3f",
    "image_change": "%.3f", "megabytes": "%.2f", "parameters": "localized", "images_seen": "localized",
    "last_loss": "%.4g",
}  # fmt: skip
MEANINGS = COLUMNS | {
    "megabytes": "on disk",
    "images_seen": "while training, those of the initial weights included",
    "last_loss": "the total (Eq. 9) at the last logged step",
}


def pickable(key: str, table: pd.DataFrame, names: Sequence[str], picked: str) -> None:
    """Draw a table; `names` are those of its rows, and `picked` the session key that lists the ticked ones.

    What the table does not show (because a filter hides it) stays as it was.
    """

    def take() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        hidden = [name for name in st.session_state[picked] if name not in names]
        st.session_state[picked] = hidden + [names[row] for row in sorted(rows)]

    rows = [row for row, name in enumerate(names) if name in st.session_state[picked]]
    st.session_state[key] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    st.dataframe(
        table, hide_index=True, key=key, selection_mode="multi-row", on_select=take, placeholder="–",
        column_config={name: configured(name, table) for name in table},
    )  # fmt: skip


def follow(picked: str, names: Sequence[str], first: Sequence[str] = ()) -> list[str]:
    """The ticked ones of these names, by the link, or as they were, or `first`; the URL follows."""
    asked = link.asked_for(picked)
    link.complain_of_missing(picked, asked or [], names)
    wanted = st.session_state.get(picked, first) if asked is None else asked
    st.session_state[picked] = [name for name in wanted if name in names]
    link.write({picked: link.joined(st.session_state[picked])})
    return st.session_state[picked]


def configured(name: str, table: pd.DataFrame) -> Any:
    """How a column is printed, and what it means."""
    if pd.api.types.is_bool_dtype(table[name]) or not pd.api.types.is_numeric_dtype(table[name]):
        return st.column_config.Column(help=MEANINGS.get(name))
    whole = pd.api.types.is_integer_dtype(table[name])
    return st.column_config.NumberColumn(help=MEANINGS.get(name), format=DIGITS.get(name, "%d" if whole else "%.4g"))
