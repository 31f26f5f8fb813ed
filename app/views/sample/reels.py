"""The films of a sample, played: of trace A, of the full network, and of trace B from the same noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import streamlit as st

from app.state import link
from app.state.selection import Selection, select
from app.views.sample.film import Film, FilmJob
from app.widgets import inputs
from app.widgets.films.player import Reel, clock, player, wipe, wiping
from deediff.traces.reader import Trace

CLOCK = "film clock"


def draw_films(selected: Selection, job: FilmJob) -> None:
    """One clock, and the films side by side or two of them under one divider."""
    film, full, trace = job.film, job.full, job.trace
    assert film is not None
    assert full is not None
    reels = [reel_of(trace, film, f"Trace A, {trace.meta.title}")]
    if full is not film:
        reels.append(reel_of(trace, full, "Full network"))
    if job.other is not None and selected.other is not None:
        reels.append(reel_of(selected.other, job.other, f"Trace B, {selected.other.meta.title}"))
    reels.append(Reel("Trace A, x_t that enters the step", film.entering, reels[0].captions, reels[0].timesteps))
    timesteps = max((reel.timesteps for reel in reels), key=len)  # so that every frame of every film is shown
    with st.container(key="films"):
        clock(CLOCK, timesteps, int(np.abs(np.asarray(timesteps) - selected.timestep).argmin()), _stop)
        if wiping():
            a, b = _choose_pair(reels)
            wipe("film wipe", a, b)
        else:
            player("film player", reels)
    if selected.other is not None and job.other is None:
        st.caption("B has no film here: another seed, fewer samples, no weights, or the same trace as A.")


def reel_of(trace: Trace, film: Film, title: str) -> Reel:
    """The predicted images of one film."""
    timesteps = [trace.timesteps[step] for step in film.steps]
    captions = [f"t = {t} · exit {film.exit_layers[s]}" for t, s in zip(timesteps, film.steps, strict=True)]
    return Reel(title, film.predicted, captions, timesteps)


def _choose_pair(reels: Sequence[Reel]) -> tuple[Reel, Reel]:
    """The two films under the divider."""
    names = [reel.title for reel in reels]
    with link.one_step(), st.container(horizontal=True, key="wiped"):
        a = inputs.selectbox("Wipe A", names, "wipe_a", names[0], width=260)
        b = inputs.selectbox("Wipe B", names, "wipe_b", names[1], width=260)
    return reels[names.index(a)], reels[names.index(b)]


def _stop(t: int) -> None:
    select(timestep=t)
