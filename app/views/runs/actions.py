"""Rename and delete runs and traces, each confirmed in a dialog."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app.jobs.queue import QUEUE
from app.state import cache
from app.state.selection import Selection, select
from deediff import runs
from deediff.errors import UserError

RUNS, TRACES = "picked runs", "picked traces"  # keys of the ticked names, in the URL as in the session
DONE = "run action done"  # session state: the sentence to show after the dialog has closed


def why_in_use(folder: Path) -> str | None:
    """Which process writes into this run or trace, a job of this explorer or another one; None when none does."""
    for job in QUEUE.jobs():
        target = getattr(job, "folder", None)
        if target is not None and (target == folder or folder in target.parents):
            return f"the job “{job.title}” writes there"
    return runs.why_busy(folder)


@st.dialog("Rename")
def rename_dialog(folder: Path) -> None:
    """Asks for a new name of one folder."""
    if (reason := why_in_use(folder)) is not None:
        st.warning(f"{folder.name} cannot be renamed now: {reason}.")
        return
    name = st.text_input("New name", folder.name, max_chars=120, key=f"new name of {folder}")
    if not st.button("Rename", type="primary", disabled=not name or name == folder.name):
        return
    try:
        new = runs.rename(folder, name.strip(), cache.runs_root())
    except UserError as error:
        st.error(str(error))
        return
    _follow(folder, new)
    _finish(f"{folder.name} is now called {new.name}.")


def _follow(old: Path, new: Path) -> None:
    """Carry selection and ticks over to the new name."""
    is_run = old.parent == cache.runs_root()
    chosen: Selection = st.session_state["selection"]
    if is_run and chosen.run.path == old:
        select(run=new.name)
    for trace, which in ((chosen.trace, "trace"), (chosen.other, "other")):
        if trace is not None and Path(str(trace.path)) == old:
            select(**{which: new.name})  # type: ignore[arg-type]

    def renamed(name: str) -> str:
        run, _, trace = name.partition("/")
        if is_run:
            return name.replace(old.name, new.name, 1) if run == old.name else name
        return f"{run}/{new.name}" if (run, trace) == (old.parents[1].name, old.name) else name

    for key in (RUNS, TRACES):
        st.session_state[key] = [renamed(name) for name in st.session_state.get(key, [])]


@st.dialog("Delete permanently?")
def delete_dialog(folders: Sequence[Path]) -> None:
    """Asks for confirmation, listing what would be deleted."""
    busy = [(folder, reason) for folder in folders if (reason := why_in_use(folder)) is not None]
    for folder, reason in busy:
        st.warning(f"{folder.name} cannot be deleted now: {reason}.")
    free = [folder for folder in folders if folder not in [other for other, _ in busy]]
    if not free:
        return
    size = sum(runs.folder_size(folder) for folder in free) / 1e6
    for folder in free:
        inside = len(list((folder / "traces").glob("*/trace.json")))
        st.markdown(f"- **{folder.name}**" + (f" and its {inside} traces" if inside else ""))
    st.caption(f"{size:,.1f} MB, from {free[0].parent}. This cannot be undone.")
    left, right = st.columns(2)
    if left.button("Keep", width="stretch"):
        st.rerun()
    if right.button("Delete", type="primary", width="stretch", key="confirm delete"):
        try:
            for folder in free:
                if (reason := why_in_use(folder)) is not None:  # a writer started while the dialog was open
                    raise UserError(f"{folder.name} was kept: {reason}")
                runs.delete(folder, cache.runs_root())
        except UserError as error:
            st.error(str(error))
            return
        _finish(f"Deleted {', '.join(folder.name for folder in free)} ({size:,.1f} MB).")


def _finish(sentence: str) -> None:
    st.session_state[DONE] = sentence
    st.rerun()


def show_done() -> None:
    """Once, after the dialog."""
    if (sentence := st.session_state.pop(DONE, None)) is not None:
        st.toast(sentence)
