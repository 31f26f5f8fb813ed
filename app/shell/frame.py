"""The frame around every page: the sidebar, the line of headline figures, and warnings."""

from __future__ import annotations

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from app.shell.headline import figures_of
from app.shell.report import report_button
from app.shell.sidebar import choose_selection
from app.state import link, shown
from app.state.selection import SELECTION, Selection
from app.widgets.empty import no_runs
from app.widgets.panels import guarded
from deediff.traces.reader import Trace


def around(page: StreamlitPage) -> None:
    """Draw the frame, then the page."""
    st.set_page_config(page_title=f"{page.title} · DeeDiff explorer")
    st.title(page.title, anchor=False)
    shown.begin()
    chosen: Selection | None = None
    problems: list[str] = []
    with st.sidebar, guarded():
        chosen, problems = choose_selection()
    above = st.container()
    if chosen is None:
        no_runs()
    else:
        st.session_state[SELECTION] = chosen
        if chosen.trace is not None:
            with guarded():
                _headline(chosen.trace, chosen)
        page.run()
        link.remove_unused()
        with st.sidebar, guarded():
            report_button(page.title, page.url_path, chosen)
    if sentences := dict.fromkeys([*problems, *link.warnings()]):  # the page may have added some
        above.warning("  \n".join(sentences))


def _headline(trace: Trace, chosen: Selection) -> None:
    """Measured figures of trace A, and of B where there is one."""
    others = [chosen.other] if chosen.other is not None else []
    comparable = [*chosen.siblings, trace, *others]
    a = figures_of(trace, comparable)
    b = figures_of(others[0], comparable) if others else None
    with st.container(horizontal=True, key="figures", gap="medium"):
        st.caption(f"**A, measured**  \nN = {int(trace.summary.samples):,}", width="content")
        for k, figure in enumerate(a):
            delta = figure.beside(b[k]) if b is not None else None
            st.metric(
                figure.label,
                figure.shown,
                delta,
                delta_color="off",
                delta_arrow="off",
                help=f"Measured. {figure.help}",
                width="content",
            )
