"""The part of the sidebar that limits every figure to some samples, and puts others beside them as trace B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import streamlit as st

from app.state.choice import widget_default
from app.state.cohort import KEY, choose_named, cohorts_of, limited, others, split_name
from app.widgets import inputs
from app.widgets.glossary import meaning
from deediff.errors import UserError
from deediff.runs import Run
from deediff.traces.cohort import samples_to_csv
from deediff.traces.cohort_file import NamedCohort
from deediff.traces.reader import Trace

ALL, UNNAMED = "all samples", "samples by number"  # options of the list
LIST = "cohort from the list"  # session state
CHOSEN, REST = (
    "False",
    "True",
)  # of `others` in the URL: trace B as chosen above; the samples that are not in the cohort


@dataclass(frozen=True)
class ChosenCohort:
    """The samples that A and B are limited to."""

    text: str = ""  # in the URL
    numbers: tuple[int, ...] = ()  # none: all samples
    beside: str = CHOSEN  # what trace B is: CHOSEN, REST, or another cohort by its name
    second: tuple[int, ...] = ()  # the samples of that other cohort

    def limit(
        self, trace: Trace, other: Trace | None, siblings: list[Trace], problems: list[str]
    ) -> tuple[Trace, Trace | None, list[Trace]]:
        """A, B and further traces, with these samples alone; unlimited where A lacks one of them."""
        try:
            found: Trace = limited(trace, self.numbers)
        except UserError as error:
            problems.append(f"All samples are shown: {error}")
            return trace, other, siblings
        rest = others(trace, self.numbers) if self.beside == REST else self.second
        if rest:
            other = _if_possible(trace, rest, problems)
        elif other is not None:
            other = _if_possible(other, self.numbers, problems)
        return found, other, [t for t in (_if_possible(t, self.numbers, []) for t in siblings) if t is not None]


def choose_cohort_of(run: Run) -> ChosenCohort:
    """Draw the widgets: a list of the run's named cohorts, and the samples as text."""
    kept: dict[str, NamedCohort] = {}
    try:
        kept = cohorts_of(run.path)
    except UserError as error:
        st.caption(f":material/error: {error}")
    place = st.container()
    options = {"placeholder": "all, or e.g. hard:3,7-9", "help": meaning("cohort")}
    text = inputs.text_input("Samples", KEY, **options).strip()
    if not text:
        _draw_list(place, kept, ALL)
        return ChosenCohort()
    try:
        name, numbers = split_name(text, kept)
    except UserError as error:
        _draw_list(place, kept, UNNAMED)
        st.caption(f":material/error: {error}")
        return ChosenCohort()
    is_kept = name in kept and kept[name].numbers == numbers
    _draw_list(place, kept, name if is_kept else UNNAMED)
    note = f" · {kept[name].note}" if is_kept and kept[name].note else ""
    st.caption(f"{name + ': ' if name else ''}{len(numbers):,} samples{note}")
    beside = [CHOSEN, REST, *(other for other in kept if other not in (name, CHOSEN, REST))]
    chosen = inputs.selectbox("Beside the cohort", beside, "others", format_func=_beside, label_visibility="collapsed")
    table = samples_to_csv(numbers)
    st.download_button("Sample numbers", table, f"{name or 'samples'}.csv", "text/csv", icon=":material/download:")
    return ChosenCohort(text, numbers, chosen, kept[chosen].numbers if chosen in kept else ())


def _beside(option: str) -> str:
    return {CHOSEN: "Trace B: as chosen", REST: "Trace B: all other samples of A"}.get(
        option, f"Trace B: {option} of A"
    )


def _draw_list(place: st.delta_generator.DeltaGenerator, kept: Mapping[str, NamedCohort], chosen: str) -> None:
    """The named cohorts, where there are any."""
    if not kept:
        return
    options = [ALL, *kept, *[UNNAMED] * (chosen == UNNAMED)]
    shown = widget_default(LIST, chosen)
    index = None if shown is None else options.index(shown)
    place.selectbox("Cohort", options, index, key=LIST, on_change=partial(_take, kept))


def _take(kept: Mapping[str, NamedCohort]) -> None:
    if (name := st.session_state[LIST]) != UNNAMED:
        choose_named(kept.get(name))


def _if_possible(trace: Trace, numbers: tuple[int, ...], problems: list[str]) -> Trace | None:
    try:
        return limited(trace, numbers)
    except UserError as error:
        problems.append(str(error))
        return None
