"""What the reader chose about the lens, all of it in the URL."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app.state import link
from app.state.choice import resolve
from app.state.selection import Selection, select
from app.views.sample.lens.compute import Grid, Source, readouts_of, spread_steps
from app.widgets import inputs
from app.widgets.image_difference import AMPLIFY
from deediff.analysis.trajectory import DECODER, HEAD, NETWORK, ExitChoice
from deediff.digits import whole_number

FORCED, CELL = "forced", "lens_cell"  # keys in the URL, as in the session
EXIT = "exit"  # the selected cell is that of an exit layer
BORDERS = {"u": "u", "loss": "True loss"}
SHOWN = {"image": "x̂₀", "difference": f"Difference × {AMPLIFY}"}
COLUMNS, ROWS = (6, 12, 24, 48), (1, 2, 3, 4)
READERS = {HEAD: "Output head", DECODER: "Decoder"}


@dataclass(frozen=True)
class Choices:
    """What is drawn."""

    grid: Grid
    border: str  # key of BORDERS
    difference: bool


def choose_cells(selected: Selection, source: Source) -> Choices:
    """Draw the controls."""
    model, steps = source.model, len(source.trace.timesteps)
    kinds = [kind for kind in READERS if kind == DECODER or (model.heads is not None and model.head_kind != DECODER)]
    with link.one_step(), st.container(horizontal=True, vertical_alignment="bottom", key="lens_controls", gap="medium"):
        exits = inputs.segmented_control(
            "Exits read by",
            kinds,
            "lens_exits",
            kinds[0],
            format_func=READERS.__getitem__,
            width="content",
            help="The trained output head of each exit, or the network's own last layers.",
        )
        kind = inputs.segmented_control(
            "Show", list(SHOWN), "lens_show", "image", format_func=SHOWN.__getitem__, width="content"
        )
        border = inputs.segmented_control(
            "Border",
            list(BORDERS),
            "lens_border",
            "u" if model.uem is not None else "loss",
            format_func=BORDERS.__getitem__,
            width="content",
            help="u of the exit's UEM; or the true loss: RMS of ε against the full network at the same x_t.",
        )
        with st.popover("Rows and columns"):
            most = inputs.select_slider("Columns at most", COLUMNS, "lens_columns", 12)
            every = inputs.select_slider("Every n-th layer", ROWS, "lens_rows", 1)
            found = readouts_of(source)
            planned = source.trace.meta.plan
            used = [] if planned is None else [name for name in found if any(s.readout == name for s in planned.steps)]
            readouts = inputs.names(
                "Without a network",
                found,
                "lens_readouts",
                used or [name for name in found if name == "gaussian"],
                "readout",
                help="Readouts that run no block: one row each, under exit layer 0.",
            )
        link.write({"lens_readouts": link.joined(readouts)})
    layers = tuple(range(model.num_blocks % every, model.num_blocks + 1, every))
    grid = Grid(spread_steps(steps, most, selected.step), layers, tuple(readouts), exits)
    return Choices(grid, border, kind == "difference")


def selected_choice(selected: Selection, source: Source, taken: ExitChoice) -> ExitChoice:
    """The readout and layer of the selected cell; what the sampling did where none was selected."""
    readout = inputs.unseen(CELL, EXIT, [EXIT, NETWORK, *readouts_of(source)])
    if readout != EXIT and not selected.layer:
        return ExitChoice(0, readout)
    if selected.layer is None:
        return taken
    exits = st.session_state.get("lens_exits", HEAD)
    return ExitChoice(
        selected.layer, DECODER if exits == DECODER and selected.layer < source.model.num_blocks else HEAD
    )


def select_cell(timestep: int, choice: ExitChoice) -> None:
    """For callbacks."""
    select(timestep=timestep, layer=choice.layer)
    st.session_state[CELL] = EXIT if choice.readout in (HEAD, DECODER) else choice.readout


def force(timestep: int, choice: ExitChoice) -> None:
    """For callbacks: this decision is changed from the next run on."""
    st.session_state[FORCED] = f"{timestep}:{choice.layer}:{choice.readout}"


def release() -> None:
    """For callbacks: no decision is changed."""
    st.session_state[FORCED] = link.NO_NAMES


def forced_choice(source: Source) -> tuple[int, ExitChoice] | None:
    """The step whose decision is changed, and the decision; None where none is."""
    steps = {timestep: step for step, timestep in enumerate(source.trace.timesteps)}

    def read(text: str) -> str | None:
        return text if text == link.NO_NAMES or _parsed(text, steps) else None

    impossible = "which is no timestep, layer and readout of this trace"
    text = st.session_state[FORCED] = resolve(FORCED, link.NO_NAMES, read, impossible=impossible)
    link.write({FORCED: None if text == link.NO_NAMES else text})
    return _parsed(text, steps)


def _parsed(text: str, steps: dict[int, int]) -> tuple[int, ExitChoice] | None:
    timestep, _, rest = text.partition(":")
    layer, _, readout = rest.partition(":")
    t, exit_layer = whole_number(timestep), whole_number(layer)
    if t is None or t not in steps or exit_layer is None or not readout:
        return None
    return steps[t], ExitChoice(exit_layer, readout)
