"""The film of one sample: x_t and the predicted x̂₀ over time, with exits and by the full network."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import streamlit as st

from app.jobs.queue import QUEUE
from app.state import cache, session
from app.state.selection import Selection, current, select
from app.views.sample.film import Film, FilmJob, Recorded, film_gflops, weights_of
from app.views.sample.reels import draw_films
from app.views.sample.stored import number_of, stored_image
from app.widgets import gallery
from app.widgets.image_difference import AMPLIFY, image_difference
from app.widgets.job_list import submit_job
from app.widgets.panels import Panel, heading
from app.widgets.waiting import polled
from deediff.errors import UserError
from deediff.runs import read_run
from deediff.traces.reader import Trace

FILMS, REQUESTED, CANCELLED = "films", "film requested", "film cancelled"  # session state
AT_ONCE = 300.0  # GFLOPs: a cheaper film is computed without a click
MOST_FILMS = 8  # kept per tab
FRAMES = 12
POLL = 0.3  # seconds between two checks of a job
HELP = (
    "*Play* runs every film of the page along the same timesteps. In the rows time runs from left to right; hover for "
    "exact numbers, click a frame to select its timestep. Nothing of this was stored: the noise of a "
    "sample depends on its seed and number only, so its path can be recomputed."
)


def film_of(selected: Selection, trace: Trace) -> FilmJob | None:
    """The job of the selected sample's film: found or submitted; None when it waits for the button.

    Raises UserError when the trace's weights are missing.
    """
    number, other = number_of(selected), _equal_seed(selected)
    films: dict[tuple[str, ...], FilmJob] = st.session_state.setdefault(FILMS, {})
    key = (str(trace.path), str(other and other.path), str(number))
    if key in films and films[key].status.state != "cancelled":
        return films[key]
    recorded = _recorded(trace)
    second = None if other is None else _recorded(other)
    waits = film_gflops(trace, other) > AT_ONCE or st.session_state.get(CANCELLED) == key
    if not st.session_state.pop(REQUESTED, False) and waits:
        return None
    st.session_state.pop(CANCELLED, None)
    for before in films.values():
        before.cancel()  # the film of another sample is not on screen any more
    job = films[key] = FilmJob(session.this_tab(), recorded, number, second)
    while len(films) > MOST_FILMS:
        films.pop(next(iter(films)))
    submit_job(job)
    return job


def _equal_seed(selected: Selection) -> Trace | None:
    """Trace B, where its sample of the same number starts from the same noise and its weights are here."""
    trace, other, number = selected.trace, selected.other, number_of(selected)
    if trace is None or other is None or other.path == trace.path or number >= other.meta.num_samples:
        return None
    if other.meta.seed != trace.meta.seed or other.cost.full == 0:
        return None
    try:
        _weights(other)
    except UserError:
        return None
    return other


def _recorded(trace: Trace) -> Recorded:
    """Raises UserError when the weights are missing."""
    return Recorded(trace, *cache.get_model(_weights(trace)))


def _weights(trace: Trace) -> Path:
    return weights_of(trace, read_run(Path(str(trace.path.parents[1]))).checkpoints)


def frames_panel(job: FilmJob | None) -> Panel:
    """The film, its progress, or the button that starts it."""
    return Panel("film", partial(_draw_polled, job))


def _draw_polled(job: FilmJob | None, selected: Selection) -> None:
    polled(partial(_draw_film, job, selected), lambda: job is not None and job.status.active, POLL)


def _draw_film(job: FilmJob | None, selected: Selection) -> None:
    trace = selected.trace
    assert trace is not None
    if job is None:
        gflops = film_gflops(trace, _equal_seed(selected))
        st.caption(f"Recomputing the film of this sample from its seed takes about {gflops:,.0f} GFLOPs.")
        st.button("Compute the film", key="film", on_click=lambda: st.session_state.update({REQUESTED: True}))
        return
    if job.status.state == "failed":
        st.error(job.status.error)
    elif job.film is None or job.full is None:
        ahead = QUEUE.ahead_of(job)
        text = f"waiting, {ahead} ahead" if ahead else f"step {job.status.done} of {job.status.total or '…'}"
        bar, button = st.columns([5, 1], vertical_alignment="center")
        bar.progress(job.status.share, f"Recomputing the film from seed and number: {text}")
        button.button("Cancel", key="cancel film", on_click=_cancel, args=(job,), width="stretch")
    else:
        _draw_frames(selected, trace, job.film, job.full, job)


def _cancel(job: FilmJob) -> None:
    """By the button; the film is not started again without one."""
    films: dict[tuple[str, ...], FilmJob] = st.session_state[FILMS]
    st.session_state[CANCELLED] = next((key for key, other in films.items() if other is job), None)
    job.cancel()


def _draw_frames(selected: Selection, trace: Trace, film: Film, full: Film, job: FilmJob) -> None:
    """Some of the frames, one of which is the selected timestep's."""
    frames = np.unique(np.linspace(0, len(film.steps) - 1, FRAMES).round().astype(int))
    here = int(np.abs(film.steps - selected.step).argmin())
    frames[int(np.abs(frames - here).argmin())] = here
    picture, change = image_difference(film.predicted, full.predicted)
    rows = {
        "x_t that enters the step": film.entering,
        "predicted x̂₀": film.predicted,
        "the full network's x̂₀": full.predicted,
        f"difference × {AMPLIFY}": picture,
    }
    title = "From noise to image" if film is full else "From noise to image, with exits and without"
    heading(title, _agreement(trace, film, job.number), HELP)
    draw_films(selected, job)
    for row, (label, images) in enumerate(rows.items()):
        if film is full and row > 1:
            break
        st.caption(label)
        tiles = []
        for f in frames:
            step = int(film.steps[f])
            t, layer = trace.timesteps[step], int(film.exit_layers[step])
            hover = f"t = {t} (step {step}), exit layer {layer}, x̂₀ differs by {change[f]:.2f} grey levels"
            caption = (f"t = {t}", f"exit {layer}", "", f"Δ {change[f]:.1f}")[row]
            tiles.append(gallery.Tile(gallery.encode(images[f]), caption, hover, number=step))
        gallery.gallery(f"film {row}", tiles, len(tiles), chosen=int(film.steps[here]), on_pick=_choose_step)


def _choose_step(step: int) -> None:
    trace = current().trace
    assert trace is not None
    select(timestep=trace.timesteps[step])


def _agreement(trace: Trace, film: Film, number: int) -> str:
    """How closely the recomputed sample matches the stored one."""
    path, image = cache.sample_rows(trace, number), stored_image(trace, number)
    words = [f"sample {number}, recomputed from seed {trace.meta.seed}"]
    if path is not None:
        words.append(f"exits equal at {int((path[0] == film.exit_layers).sum())} of {len(film.exit_layers)} steps")
    if image is not None:
        off = int(np.abs(image.astype(int) - film.image.astype(int)).max())
        words.append(f"final image within {off} grey level{'s' * (off != 1)} of the stored one")
    return " · ".join(words)
