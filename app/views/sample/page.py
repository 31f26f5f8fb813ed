"""One sample: its image beside the full network's, where it left and how sure it was, and its film."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from app.jobs.queue import QUEUE
from app.state import cache, link, selection, session
from app.state.selection import Selection, current
from app.state.traces import full_of
from app.views.sample.figures import sample_path
from app.views.sample.film import Film, FilmJob, checkpoint_of, work_of
from app.widgets import findings, gallery, job_list, ordering
from app.widgets.empty import no_trace
from app.widgets.figures import Mark
from app.widgets.image_difference import AMPLIFY, LEGEND, image_difference
from app.widgets.ordering import ORDERS
from app.widgets.panels import guarded, heading, needs_trace
from app.widgets.plot import chart, selects
from deediff.errors import UserError
from deediff.traces.reader import Trace

AT_ONCE = 300.0  # GFLOPs: a film that costs less is computed unasked
FILMS = 8  # that a tab remembers
FRAMES = 12
POLL = 0.3  # seconds between two looks at a job


def draw_header(trace: Trace, number: int) -> None:
    """Which one, and its neighbours in the order of the *Images* page."""
    with link.at_once():
        order = ordering.chosen_order(trace)
        name = ORDERS[ordering.chosen()[0]].label.lower()
    found = np.flatnonzero(order == number)
    place = int(found[0]) if len(found) else 0
    with st.container(horizontal=True, vertical_alignment="center", key="sample_header"):
        for label, key, to in (("Previous", "Left", place - 1), ("Next", "Right", place + 1)):
            there = 0 <= to < len(order)
            st.button(
                label, key=label, shortcut=key, disabled=not there, on_click=selection.select,
                kwargs={"sample": int(order[to])} if there else None,
            )  # fmt: skip
        st.markdown(f"**Sample {number} of {trace.path.name}** · {place + 1:,} of {len(order):,}, sorted by {name}")
        st.page_link("views/images/page.py", label="All images", icon=":material/grid_view:", width="content")


def stored_image(trace: Trace | None, number: int) -> NDArray[np.uint8] | None:
    """(C,H,W), where the trace holds it."""
    if trace is None or (found := trace.samples([number])).empty or found["png"].iloc[0] is None:
        return None
    pixels = np.asarray(Image.open(io.BytesIO(found["png"].iloc[0])))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def draw_image(trace: Trace, number: int, job: FilmJob | None, film_comes: bool) -> None:
    """The image, the full network's of the same seed, and their difference; and the sample's figures."""
    mine, theirs = stored_image(trace, number), stored_image(full_of(trace), number)
    if job is not None and job.film is not None and job.full is not None:
        mine = job.film.image if mine is None else mine
        theirs = job.full.image if theirs is None else theirs
    if mine is None:
        how = "the film below computes it again" if film_comes else "it was not recorded, or not copied with the trace"
        st.info(f"The image of sample {number} is not here: {how}.")
        return
    tiles = [gallery.Tile(gallery.encode(mine), str(trace.meta.policy), f"sample {number} of {trace.path.name}")]
    if trace.meta.is_full:
        st.caption("This trace is the full network's own: there is nothing to compare with.")
    elif theirs is not None:
        picture, change = image_difference(mine, theirs)
        tiles.append(gallery.Tile(gallery.encode(theirs), "full network", "the full network's image of the same seed"))
        hover = f"mean absolute difference {float(change):.3f} grey levels"
        tiles.append(gallery.Tile(gallery.encode(picture), f"difference × {AMPLIFY}", hover))
    gallery.show("sample images", tiles, columns=3)
    if not trace.meta.is_full:
        pending = "appears beside it once the film below is computed" if film_comes else "is not here to compare with"
        st.caption(f"The full network's image {pending}." if theirs is None else LEGEND)
    draw_figures(trace, number)


def draw_figures(trace: Trace, number: int) -> None:
    """Every measure of the sample that the trace holds."""
    with st.container(horizontal=True, key="sample_figures", gap="medium"):
        for name, order in ORDERS.items():
            if name == "sample" or (order.of_twins and trace.meta.is_full):
                continue
            try:
                value = ordering.measured(trace, name).get(number)
            except UserError:
                continue
            if value is not None:
                st.metric(order.label, order.text.format(value), width="content", help=order.help)


def draw_path(selected: Selection, trace: Trace, number: int, job: FilmJob | None, film_comes: bool) -> None:
    """Exit layer and u over time."""
    path, source = cache.sample_path(trace, number), "from the trace's rows"
    if path is None and job is not None and job.film is not None:
        path, source = (job.film.exit_layers, job.film.uncertainty), "recomputed, for the trace came without its rows"
    if path is None:
        how = "the film below computes them again" if film_comes else "where the sample left, they alone would tell"
        st.info(f"This trace came without its rows: {how}.")
        return
    exits, u = path
    if u is not None and np.isnan(u).all():
        u = None

    def table() -> pd.DataFrame:
        rows = pd.DataFrame({"step": np.arange(len(exits)), "timestep": trace.timesteps, "exit_layer": exits})
        known = {} if u is None else {f"u_{i}": u[:, i] for i in range(u.shape[1])}
        return rows.assign(**known)

    title = findings.about_path(exits, trace.num_blocks)
    what = "exit layer" if u is None else "exit layer (line) over u of every layer that was asked"
    heading(
        title,
        f"{what} · sample {number}, {len(exits)} steps · {source}",
        "The line is where the sample left at each step, the colours are what the UEMs said on the way (Eq. 5); white "
        "cells were not asked. Under a threshold it leaves at the first layer whose u is ≤ τ. Click a cell to choose "
        "its timestep and layer.",
        table,
        f"sample {number}",
    )
    figure = sample_path(exits, u, trace.timesteps, trace.num_blocks, _highest(selected), _mark(selected))
    chart(figure, "plot sample path", title, selects(x="timestep", y="layer"))


def _highest(selected: Selection) -> float:
    """The colour scale's end: that of the heatmaps of mean u."""
    pair = [t for t in (selected.trace, selected.other) if t is not None and t.meta.has_uncertainty]
    means = [np.nanmax(t.summary.mean_uncertainty()) for t in pair]
    return float(np.ceil(max(means, default=0.5) * 20) / 20)


def _mark(selected: Selection) -> Mark:
    return Mark(selected.timestep, selected.layer)


def film_of(selected: Selection, trace: Trace, number: int) -> FilmJob | None:
    """The job that computes this sample's film: found, started, or None when it waits for the button."""
    films: dict[tuple[str, int], FilmJob] = st.session_state.setdefault("films", {})
    key = (str(trace.path), number)
    if key in films and films[key].status.state != "cancelled":
        return films[key]
    checkpoint = checkpoint_of(trace, selected.run.checkpoints)
    waits = work_of(trace) > AT_ONCE or st.session_state.get("film cancelled") == key
    if not st.session_state.pop("film asked", False) and waits:
        return None
    st.session_state.pop("film cancelled", None)
    for other in films.values():
        other.cancel()  # who goes on to the next sample does not wait for the last one
    model, schedule = cache.open_model(checkpoint)
    job = films[key] = FilmJob(session.current(), trace, number, model, schedule)
    while len(films) > FILMS:
        films.pop(next(iter(films)))
    job_list.submit(job)
    return job


def draw_film(selected: Selection, trace: Trace, number: int, job: FilmJob | None) -> None:
    """x_t above the predicted x̂₀ over time, and the full network's x̂₀ and the difference below."""
    if job is None:
        st.caption(f"The film of this sample costs about {work_of(trace):,.0f} GFLOPs to compute again from its seed.")
        st.button("Compute the film", key="film", on_click=lambda: st.session_state.update({"film asked": True}))
        return
    if job.status.state == "failed":
        st.error(job.status.error)
    elif job.film is None or job.full is None:
        ahead = QUEUE.ahead_of(job)
        text = f"waiting, {ahead} ahead" if ahead else f"step {job.status.done} of {job.status.total or '…'}"
        bar, button = st.columns([5, 1], vertical_alignment="center")
        bar.progress(job.status.share, f"Computing the film again from seed and number: {text}")
        button.button("Cancel", key="cancel film", on_click=_cancel, args=(trace, number, job), width="stretch")
    else:
        draw_frames(selected, trace, job.film, job.full, job)


def _cancel(trace: Trace, number: int, job: FilmJob) -> None:
    """By the reader: it is not begun again until asked for."""
    st.session_state["film cancelled"] = str(trace.path), number
    job.cancel()


def draw_frames(selected: Selection, trace: Trace, film: Film, full: Film, job: FilmJob) -> None:
    """Some of the frames; the chosen timestep is among them."""
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
    heading(
        "From noise to image" if film is full else "From noise to image, with exits and without",
        _agreement(trace, film, job.number),
        "Time runs from left to right; hover for exact numbers, click a frame to choose its timestep. Nothing of this "
        "was stored: the noise of a sample depends on its seed and number only, so its path can be computed again.",
    )
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
        gallery.show(f"film {row}", tiles, len(tiles), chosen=int(film.steps[here]), on_pick=_choose_step)


def _choose_step(step: int) -> None:
    trace = current().trace
    assert trace is not None
    selection.select(timestep=trace.timesteps[step])


def _agreement(trace: Trace, film: Film, number: int) -> str:
    """How well the recomputed sample meets the stored one."""
    path, image = cache.sample_path(trace, number), stored_image(trace, number)
    words = [f"sample {number}, recomputed from seed {trace.meta.seed}"]
    if path is not None:
        words.append(f"exits equal at {int((path[0] == film.exit_layers).sum())} of {len(film.exit_layers)} steps")
    if image is not None:
        off = int(np.abs(image.astype(int) - film.image.astype(int)).max())
        words.append(f"final image within {off} grey level{'s' * (off != 1)} of the stored one")
    return " · ".join(words)


def draw() -> None:
    """The page."""
    selected = current()
    if not selected.run.traces:
        no_trace(selected.run)
        return
    if (missing := needs_trace(selected)) is not None:
        st.info(missing)
        return
    trace = selected.trace
    assert trace is not None
    number = 0 if selected.sample is None else selected.sample
    draw_header(trace, number)
    job: FilmJob | None = None
    problem = ""
    try:
        job = film_of(selected, trace, number)
    except UserError as error:
        problem = str(error)
    with st.container(key="panels"):
        left, right = st.columns([2, 3])
    with left, guarded():
        draw_image(trace, number, job, film_comes=not problem)
    with right, guarded():
        draw_path(selected, trace, number, job, film_comes=not problem)
    if problem:
        st.info(problem)
        return
    if job is None or not job.status.active:
        with guarded():
            draw_film(selected, trace, number, job)
        return
    st.fragment(_poll, run_every=POLL)(selected, trace, number, job)


def _poll(selected: Selection, trace: Trace, number: int, job: FilmJob) -> None:
    with guarded():
        draw_film(selected, trace, number, job)
    if not job.status.active:
        st.rerun()  # the whole page, which may use what was recomputed; and polling ends


with guarded():
    draw()
