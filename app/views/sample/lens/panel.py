"""The diffusion lens: x̂_0 of every exit along the sample's way, layer × timestep."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from app.state.selection import Selection
from app.views.sample.lens import choices, picture
from app.views.sample.lens.choices import Choices
from app.views.sample.lens.compute import AT_ONCE, Source, is_computed, lens_of, source_of
from app.views.sample.lens.forced import draw_forced
from app.views.sample.path import highest_uncertainty
from app.widgets.films.player import Reel, clock, player, wipe, wiping
from app.widgets.panels import Panel, heading, needs_trace
from app.widgets.plot import Point, chart
from deediff.analysis.lens import Lens
from deediff.analysis.trajectory import DECODER, HEAD, ExitChoice
from deediff.errors import UserError

PLOT = "plot diffusion lens"
REQUESTED = "lens asked"  # session state: the sample that the button was pressed for
HELP = (
    "Each cell is the clean image x̂₀ = (x_t − √(1−ᾱ) ε) / √ᾱ that an exit predicts from the x_t of this sample, time "
    "from left to right, exit layers upward; below them the readouts that run no block. The line is what the sampling "
    "took; the other cells change nothing. The dashed line is the middle block, where the long skips begin. Click a "
    "cell to select its timestep and layer."
)


def _draw_lens(selected: Selection) -> None:
    try:
        source = source_of(selected)
    except UserError as error:
        st.info(str(error))
        return
    chosen = choices.choose_cells(selected, source)
    forced = choices.forced_choice(source)
    wanted = st.session_state.get(REQUESTED) == source.key
    if source.gflops > AT_ONCE and not wanted and not is_computed(source, chosen.grid):
        st.caption(f"Recomputing this sample from its seed takes up to {source.gflops:,.0f} GFLOPs.")
        st.button("Compute the lens", key="lens", on_click=lambda: st.session_state.update({REQUESTED: source.key}))
        return
    lens = lens_of(source, chosen.grid)
    if lens is None:
        return
    _draw_grid(selected, source, chosen, lens)
    if forced is not None:
        draw_forced(source, *forced)


def _draw_grid(selected: Selection, source: Source, chosen: Choices, lens: Lens) -> None:
    trace, column = source.trace, lens.steps.index(selected.step)
    cell = choices.selected_choice(selected, source, lens.taken[column])
    row = lens.row_of(cell)
    values = lens.uncertainty if chosen.border == "u" else lens.error
    exits = [r for r, each in enumerate(lens.rows) if each.readout in (HEAD, DECODER)]
    highest = highest_uncertainty(selected) if chosen.border == "u" else _ceiling(lens.error[exits])
    images = picture.shown_images(lens, chosen.difference)
    png = picture.compose(images, lens.known, picture.border_colors(values, highest))
    scale = ("u" if chosen.border == "u" else "RMS of ε", highest)
    figure = picture.lens_figure(lens, trace.timesteps, png, scale, None if row is None else (row, column))
    subtitle = (
        f"x̂₀ of {len(exits)} exits at {len(lens.steps)} of {len(trace.timesteps)} steps · sample {source.number}, "
        f"recomputed from seed {trace.meta.seed}"
    )
    table = partial(_table, lens, trace.timesteps)
    left, right = st.columns([5, 3], gap="medium")
    with left:
        heading(_title(lens, trace.timesteps), subtitle, HELP, table, f"diffusion lens {source.number}")
        chart(figure, PLOT, "Diffusion lens", partial(_click, lens, trace.timesteps), subtitle)
    with right:
        _draw_cell(source, lens, cell, row, column)


def _draw_cell(source: Source, lens: Lens, cell: ExitChoice, row: int | None, column: int) -> None:
    """The selected cell, large, as a film along its row; and the button that takes this exit."""
    timesteps, num_blocks = source.trace.timesteps, source.model.num_blocks
    t, name = timesteps[lens.steps[column]], picture.choice_name(cell, num_blocks)
    if row is None:
        st.caption(f"The selected cell ({name}) is not among the rows: click one of them.")
        return
    captions = [
        picture.about_cell(lens, timesteps, row, k).replace("<br>", "\n").replace("<b>", "").replace("</b>", "")
        for k in range(len(lens.steps))
    ]
    times = [timesteps[step] for step in lens.steps]
    names = [picture.choice_name(choice, num_blocks) for choice in lens.taken]
    taken_here = [f"t = {at}, taken: {what}" for at, what in zip(times, names, strict=True)]
    reels = [
        Reel(name[0].upper() + name[1:], lens.images[row], captions, times, lens.known[row].tolist()),
        Reel("Full network", lens.full, taken_here, times),
    ]
    with st.container(key="films"):
        clock("film clock", times, column, partial(_stop, lens.rows[row]), follows=PLOT)
        if wiping():
            wipe("lens wipe", *reels)
        else:
            player("lens player", reels)
    taken = lens.row_of(lens.taken[column]) == row and lens.rows[row].readout != DECODER
    st.button(
        f"Leave here: {name}, at t = {t}",
        key="leave here",
        on_click=choices.force,
        args=(t, cell),
        disabled=not lens.known[row, column],
        help="Samples this image again with this one decision changed and the same noise; later steps decide anew."
        + (" The sampling left here anyway, so nothing will change." if taken else ""),
    )


def _click(lens: Lens, timesteps: list[int], point: Point) -> None:
    row, column = round(point["y"]), round(point["x"])
    choices.select_cell(timesteps[lens.steps[column]], lens.rows[row])


def _stop(row: ExitChoice, t: int) -> None:
    choices.select_cell(t, row)


def _ceiling(values: np.ndarray) -> float:
    """The upper end of a scale from 0: the largest value, rounded up to two digits."""
    largest = float(np.nanmax(values, initial=1e-6))
    digit = 10.0 ** (np.floor(np.log10(largest)) - 1)
    return float(np.ceil(largest / digit) * digit)


def _title(lens: Lens, timesteps: list[int]) -> str:
    """The finding: where the prediction that was taken is furthest from the full network's."""
    rows = [lens.row_of(choice) for choice in lens.taken]
    errors = [np.nan if row is None else lens.error[row, k] for k, row in enumerate(rows)]
    if not np.nanmax(errors, initial=0) > 0:
        return "The full network at every step shown; the rows below it are what its exits would predict"
    worst = int(np.nanargmax(errors))
    t = timesteps[lens.steps[worst]]
    return f"The predictions taken deviate most from the full network at t = {t}: RMS of ε {errors[worst]:.3f}"


def _table(lens: Lens, timesteps: list[int]) -> pd.DataFrame:
    """One row per cell."""
    rows, columns = lens.known.shape
    taken = [[lens.row_of(lens.taken[k]) == r for k in range(columns)] for r in range(rows)]
    return pd.DataFrame(
        {
            "step": np.tile(lens.steps, rows),
            "timestep": np.tile([timesteps[s] for s in lens.steps], rows),
            "exit_layer": np.repeat([row.layer for row in lens.rows], columns),
            "readout": np.repeat([row.readout for row in lens.rows], columns),
            "uncertainty": lens.uncertainty.ravel(),
            "rms_error": lens.error.ravel(),
            "taken": np.ravel(taken),
        }
    )


LENS = Panel("diffusion lens", _draw_lens, [needs_trace])
