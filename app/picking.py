"""Tables whose ticked rows are a list of names in the session, whoever else changes that list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

FORMATS: dict[str, Any] = {
    "layer_ratio": st.column_config.NumberColumn(format="%.4f", help="Mean exit layer / N."),
    "gflops_per_step": st.column_config.NumberColumn(format="%.4f", help="Per image; attention and UEMs included."),
    "seconds_per_image": st.column_config.NumberColumn(format="%.4f", help="Measured while sampling."),
    "speed_up": st.column_config.NumberColumn(format="%.3f", help="Against the full network on the same machine."),
    "efficiency": st.column_config.NumberColumn(format="%.3f", help="Speed-up / what the saved GFLOPs promise."),
    "image_change": st.column_config.NumberColumn(
        format="%.3f", help="Mean absolute difference in grey levels from the full network's images of equal seeds."
    ),
    "megabytes": st.column_config.NumberColumn(format="%.2f", help="On disk."),
    "parameters": st.column_config.NumberColumn(format="localized"),
    "images_seen": st.column_config.NumberColumn(format="localized", help="Training images."),
    "last_loss": st.column_config.NumberColumn(format="%.4g", help="The total at the last logged step."),
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
        table, hide_index=True, key=key, selection_mode="multi-row", on_select=take, column_config=FORMATS,
        placeholder="–",
    )  # fmt: skip
