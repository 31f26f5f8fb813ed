"""A note about new runs and traces, and a new run of the script when the folder of runs has changed."""

from __future__ import annotations

import streamlit as st

from app.state import cache
from app.state.selection import Selection, select
from app.state.watch import Contents, look

EVERY = 3.0  # seconds between two looks at the folder
DRAWN, NEWS = "contents as drawn", "new runs and traces"  # session state
MOST = 3  # new names with a button


def watch_folder() -> None:
    """Call it once per run of the script, before the page: what is found later has changed since."""
    now = look(cache.runs_root())
    _take_news(now, st.session_state.get(DRAWN))
    st.session_state[DRAWN] = now
    st.fragment(_look_again, run_every=EVERY)()


def _look_again() -> None:
    """The timer's run draws nothing; it runs the whole script where something has changed."""
    if look(cache.runs_root()) != st.session_state.get(DRAWN):
        st.rerun()


def _take_news(now: Contents, before: Contents | None) -> None:
    """Keep what is new until it is selected or gone."""
    news = list(st.session_state.get(NEWS, []))
    if before is not None:
        news += [name for name in now.new_since(before) if name not in news]
    st.session_state[NEWS] = [name for name in news if name in now.runs or name in now.traces]


def show_news(chosen: Selection) -> None:
    """The note, with a button for each of the newest."""
    here = {chosen.run.name, *(f"{chosen.run.name}/{t.path.name}" for t in (chosen.trace, chosen.other) if t)}
    news = st.session_state[NEWS] = [name for name in st.session_state.get(NEWS, []) if name not in here]
    if not news:
        return
    with st.container(key="news", border=True, gap="xsmall"):
        st.caption(f":material/fiber_new: {len(news)} new since this page was opened")
        for name in reversed(news[-MOST:]):
            run, _, trace = name.partition("/")
            picked = {"run": run, "trace": trace} if trace else {"run": run}
            label = trace if run == chosen.run.name else name
            st.button(label, key=f"show {name}", on_click=select, kwargs=picked, width="stretch")
        st.button("Dismiss", key="dismiss news", on_click=_dismiss, type="tertiary")


def _dismiss() -> None:
    st.session_state[NEWS] = []
