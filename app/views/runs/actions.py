"""What can be done to runs and traces, each asked about in a dialog before it happens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from app.jobs.queue import QUEUE
from app.state import cache
from app.state.selection import Selection, select
from deediff import runs
from deediff.errors import UserError

RUNS, TRACES = "picked runs", "picked traces"  # session, and the URL: what is ticked on *Runs*
DONE = "run action done"  # session: the sentence to say after the dialog has closed


def why_busy(folder: Path) -> str | None:
    """Who writes into this run or trace: a job of this explorer, or somebody else; None when nobody does."""
    for job in QUEUE.jobs():
        target = getattr(job, "folder", None)
        if target is not None and (target == folder or folder in target.parents):
            return f"the job “{job.title}” writes there"
    return runs.why_busy(folder)


@st.dialog("Rename")
def ask_name(folder: Path) -> None:
    """A new name for one folder."""
    if (reason := why_busy(folder)) is not None:
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
    """What was selected or ticked under its old name is so under the new one."""
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


@st.dialog("Delete for good?")
def ask_delete(folders: Sequence[Path]) -> None:
    """Confirmation, with what would be lost."""
    busy = [(folder, reason) for folder in folders if (reason := why_busy(folder)) is not None]
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
                if (reason := why_busy(folder)) is not None:  # somebody began while the dialog stood open
                    raise UserError(f"{folder.name} was kept: {reason}")
                runs.delete(folder, cache.runs_root())
        except UserError as error:
            st.error(str(error))
            return
        _finish(f"Deleted {', '.join(folder.name for folder in free)} ({size:,.1f} MB).")


def _finish(sentence: str) -> None:
    st.session_state[DONE] = sentence
    st.rerun()


def say_what_was_done() -> None:
    """Once, after the dialog."""
    if (sentence := st.session_state.pop(DONE, None)) is not None:
        st.toast(sentence)
