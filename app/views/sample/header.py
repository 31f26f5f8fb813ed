"""The sample's number, and its neighbours in the order of the page *Images*."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app.state import link
from app.state.classes import class_of
from app.state.selection import Selection, select
from app.views.sample.stored import number_of
from app.widgets.panels import Panel
from app.widgets.samples import ordering
from app.widgets.samples.ordering import ORDERS


def draw_header(selected: Selection) -> None:
    """Buttons to the neighbours, and a link back to all images."""
    trace, number = selected.trace, number_of(selected)
    assert trace is not None
    with link.one_step():
        order = ordering.samples_in_order(trace)
        name = ORDERS[ordering.chosen_order()[0]].label.lower()
    found = np.flatnonzero(order == number)
    place = int(found[0]) if len(found) else 0
    with st.container(horizontal=True, vertical_alignment="center", key="sample_header"):
        for label, key, to in (("Previous", "Left", place - 1), ("Next", "Right", place + 1)):
            exists = 0 <= to < len(order)
            st.button(
                label,
                key=label,
                shortcut=key,
                disabled=not exists,
                on_click=select,
                kwargs={"sample": int(order[to])} if exists else None,
            )
        class_name = class_of(trace, number)
        of_class = f" · class {class_name}" if class_name is not None else ""
        st.markdown(
            f"**Sample {number} of {trace.path.name}**{of_class} · {place + 1:,} of {len(order):,}, sorted by {name}"
        )
        st.page_link("views/images/page.py", label="All images", icon=":material/grid_view:", width="content")


HEADER = Panel("sample header", draw_header)
