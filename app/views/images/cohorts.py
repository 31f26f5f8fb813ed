"""The cohorts of the run: keep the chosen samples under a name, list, choose, rename and delete them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import streamlit as st

from app.state import cohort as state
from app.state.selection import Selection
from app.widgets.panels import Panel, heading
from app.widgets.samples import ordering
from deediff.errors import UserError
from deediff.traces.cohort import samples_to_csv, samples_to_text
from deediff.traces.cohort_file import NOTE, NamedCohort, date_and_time
from deediff.traces.reader import Trace

SAID = "said about cohorts"  # session state: a sentence of a callback
HELP = (
    "A cohort is a group of samples, made by a box around points of the sample map, of the images on this page, or of "
    "numbers typed in the sidebar. *Show* limits every figure of every page to it; the list below *Samples* in the "
    "sidebar puts the other samples, or another cohort, beside it as trace B. *CSV* is for `deediff trends --samples`."
)


def cohorts_panel(trace: Trace, page: Sequence[int]) -> Panel:
    """The run's cohorts; `page`: the samples of the images on this page."""
    return Panel("cohorts", partial(_draw, trace, page))


def _draw(trace: Trace, page: Sequence[int], selected: Selection) -> None:
    run = selected.run.path
    kept = state.cohorts_of(run)
    name, numbers = state.split_name(selected.cohort, kept) if selected.cohort else ("", ())
    where = f"of {selected.run.name}, kept in its cohorts.json" if kept else "made by a box in the figure below"
    heading(f"{len(kept)} cohort{'s' * (len(kept) != 1)}" if kept else "Cohorts", where, HELP)
    if said := st.session_state.pop(SAID, ""):
        st.warning(said)
    with st.container(horizontal=True, vertical_alignment="bottom", key="cohort_new"):
        st.button(f"These {len(page)} images", key="cohort of page", on_click=state.choose_cohort, args=(list(page),))
        if numbers and name not in kept:
            _draw_new(run, samples_to_text(numbers), name or _unused(kept), trace)
    for cohort in kept.values():
        _draw_one(run, cohort, trace, shown=cohort.name == name)


def _draw_new(run: Path, samples: str, name: str, trace: Trace) -> None:
    """Name and note of the chosen samples."""
    fields = f"new cohort name {hash(samples)}", f"new cohort note {hash(samples)}"
    st.text_input("Keep the chosen samples as", name, key=fields[0], max_chars=40, width=220)
    st.text_input("Note", key=fields[1], max_chars=NOTE, placeholder="optional")
    new = NamedCohort("new", samples, trace=trace.path.name)
    st.button("Keep", key="keep cohort", type="primary", on_click=_keep, args=(run, new, fields))


def _draw_one(run: Path, cohort: NamedCohort, trace: Trace, shown: bool) -> None:
    key = f"cohort {cohort.name}"
    with st.container(horizontal=True, vertical_alignment="center", key=key.replace(" ", "_"), gap="small"):
        words = [f"**{cohort.name}**", f"{len(cohort.numbers):,} samples", _exits(trace, cohort)]
        words += [cohort.note, f"on {cohort.trace}" if cohort.trace else "", cohort.created]
        st.markdown(" · ".join(filter(None, words)), width="stretch")
        label = "All samples" if shown else "Show"
        st.button(label, key=f"show {key}", on_click=state.choose_named, args=(None if shown else cohort,))
        with st.popover("Edit", key=f"edit {key}"):
            fields = f"name of {key}", f"note of {key}"
            st.text_input("Name", cohort.name, key=fields[0], max_chars=40)
            st.text_input("Note", cohort.note, key=fields[1], max_chars=NOTE)
            st.button("Save", key=f"save {key}", on_click=_keep, args=(run, cohort, fields, cohort.name))
            st.button(
                "Delete", key=f"delete {key}", on_click=_delete, args=(run, cohort, shown), icon=":material/delete:"
            )
        table = samples_to_csv(cohort.numbers)
        st.download_button(
            "CSV", table, f"{cohort.name}.csv", "text/csv", key=f"csv {key}", type="tertiary", on_click="ignore"
        )


def _exits(trace: Trace, cohort: NamedCohort) -> str:
    """Mean exit layer of its samples, where the trace has them."""
    try:
        layers = ordering.sample_measure(trace, "exit")
    except UserError:
        return ""
    found = layers[layers.index.isin(cohort.numbers)]
    return f"mean exit layer {found.mean():.2f} (of all: {layers.mean():.2f})" if len(found) else ""


def _unused(kept: dict[str, NamedCohort]) -> str:
    return next(name for k in range(1, len(kept) + 2) if (name := f"cohort {k}") not in kept)


def _keep(run: Path, cohort: NamedCohort, fields: tuple[str, str], instead_of: str | None = None) -> None:
    """The callback of *Keep* and *Save*; `fields`: session keys of name and note, as they are when it is called."""
    name, note = (st.session_state[field].strip() for field in fields)
    try:
        kept = replace(cohort, name=name, note=note, created=cohort.created or date_and_time())
        st.session_state[SAID] = state.keep(run, kept, instead_of)
    except UserError as error:
        st.session_state[SAID] = f"Not kept: {error}."
        return
    state.choose_named(kept)


def _delete(run: Path, cohort: NamedCohort, shown: bool) -> None:
    try:
        state.forget(run, cohort.name)
    except UserError as error:
        st.session_state[SAID] = f"Not deleted: {error}."
        return
    if shown:
        state.choose_named(None)
