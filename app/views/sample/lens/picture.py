"""The lens as one picture, and the figure around it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.widgets import figures
from app.widgets.figures import FULL, SELECTED, UNCERTAINTY, Spec
from app.widgets.image_difference import image_difference
from deediff.analysis.lens import Lens
from deediff.analysis.trajectory import DECODER, HEAD, NETWORK, ExitChoice

PIXELS = 64  # of a cell's image in the picture, at least
BORDER, GAP = 5, 3  # pixels of the picture, on each side of a cell
CELL = 34  # height of a row on screen
PATH = "#D55E00"  # readable on grey and on both themes
MOST_LABELS = 14  # of the time axis

Images = NDArray[np.uint8]


def shown_images(lens: Lens, difference: bool) -> Images:
    """(R,K,C,H,W) x̂_0, or (R,K,3,H,W) its amplified difference from the full network's at the same x_t."""
    return (
        image_difference(lens.images, np.broadcast_to(lens.full, lens.images.shape))[0] if difference else lens.images
    )


def compose(images: Images, known: NDArray[np.bool_], borders: Images) -> bytes:
    """One PNG of all cells, the first row at the bottom: (R,K,C,H,W), (R,K), (R,K,3) RGB."""
    rows, columns, _, height, width = images.shape
    times = max(1, round(PIXELS / height))
    pixels = np.broadcast_to(images, (rows, columns, 3, height, width)) if images.shape[2] == 1 else images
    pixels = pixels.repeat(times, axis=3).repeat(times, axis=4).transpose(0, 1, 3, 4, 2)  # (R,K,h,w,3)
    edge = BORDER + GAP
    cell = (pixels.shape[2] + 2 * edge, pixels.shape[3] + 2 * edge)
    picture = np.zeros((rows, columns, *cell, 4), dtype=np.uint8)  # transparent
    framed = picture[:, :, GAP:-GAP, GAP:-GAP]
    framed[..., :3], framed[..., 3] = borders[:, :, None, None], 255
    picture[:, :, edge:-edge, edge:-edge, :3] = pixels
    picture[~known] = 0
    whole = picture[::-1].transpose(0, 2, 1, 3, 4).reshape(rows * cell[0], columns * cell[1], 4)
    buffer = io.BytesIO()
    Image.fromarray(whole).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def border_colors(values: NDArray[np.float32], highest: float) -> Images:
    """(R,K) on the scale of u → (R,K,3) RGB; grey where there is no value."""
    from plotly.colors import sample_colorscale

    scale = sample_colorscale(UNCERTAINTY, list(np.linspace(0, 1, 256)), colortype="tuple")
    palette = (np.asarray(scale) * 255).round().astype(np.uint8)
    places = np.clip(np.nan_to_num(values) / highest * 255, 0, 255).round().astype(int)
    grey = np.array([int(FULL[k : k + 2], 16) for k in (1, 3, 5)], dtype=np.uint8)
    return np.where(np.isnan(values)[..., None], grey, palette[places])


def lens_figure(
    lens: Lens,
    timesteps: list[int],  # (S,) of the trace
    picture: bytes,
    scale: tuple[str, float],  # name and upper end of the borders' colour scale
    selected: tuple[int, int] | None,  # row, column
) -> Spec:
    """The picture with axes, the path that was taken, and the text of each cell."""
    rows, columns = lens.known.shape
    num_blocks = max(row.layer for row in lens.rows)
    source = "data:image/png;base64," + base64.b64encode(picture).decode()
    place = {"x": -0.5, "y": rows - 0.5, "sizex": columns, "sizey": rows, "xref": "x", "yref": "y"}
    image = {"source": source, "sizing": "stretch", "layer": "below", **place}
    at, high = path_places(lens), {"color": PATH, "width": 2}
    line = {"type": "scatter", "mode": "lines", "x": list(range(columns)), "y": at, "hoverinfo": "skip"}
    cells = {
        "type": "heatmap",
        "z": figures.packed(np.zeros(lens.known.shape, dtype=np.float32)),
        "opacity": 0,
        "showscale": False,
        "text": [[about_cell(lens, timesteps, r, k) for k in range(columns)] for r in range(rows)],
        "hovertemplate": "%{text}<extra></extra>",
    }
    bar = {"title": {"text": scale[0], "side": "right"}, "thickness": 12, "len": 1, "outlinewidth": 0}
    colors = {"color": [0], "cmin": 0, "cmax": scale[1], "colorscale": UNCERTAINTY, "showscale": True, "colorbar": bar}
    scale_only = {"type": "scatter", "x": [None], "y": [None], "mode": "markers", "marker": colors, "hoverinfo": "skip"}
    taken = [(k, row) for k, choice in enumerate(lens.taken) if (row := lens.row_of(choice)) is not None]
    shapes = [_box(k, row, high) for k, row in taken]
    if selected is not None:
        edges = (("black", 4.5), ("white", 2))
        shapes += [{**_box(selected[1], selected[0], {"color": c, "width": w}), "name": SELECTED} for c, w in edges]
    shown = [row.layer for row in lens.rows if row.readout in (HEAD, DECODER)]
    if shown[0] <= num_blocks // 2 < shown[-1]:
        middle = float(np.interp(num_blocks // 2 + 0.5, shown, np.arange(len(shown)) + rows - len(shown)))
        along = {"type": "line", "xref": "x domain", "x0": 0, "x1": 1, "y0": middle, "y1": middle}
        shapes.insert(0, {**along, "line": {"color": FULL, "width": 1.5, "dash": "dash"}})
    every = -(-columns // MOST_LABELS)
    x = figures.axis(
        "timestep t  (sampling runs from left to right)",
        range=[-0.5, columns - 0.5],
        tickvals=list(range(0, columns, every)),
        ticktext=[str(timesteps[s]) for s in lens.steps[::every]],
        constrain="domain",
        fixedrange=True,
    )
    y = figures.axis(
        "exit layer",
        range=[-0.5, rows - 0.5],
        tickvals=list(range(rows)),
        ticktext=[row_label(row, num_blocks) for row in lens.rows],
        scaleanchor="x",
        constrain="domain",
        fixedrange=True,
    )
    under = {**line, "line": {"color": "rgba(255,255,255,0.85)", "width": 4}}
    data: list[dict[str, Any]] = [cells, under, {**line, "line": high}, scale_only]
    height = rows * CELL + 66
    return figures.spec(
        data, x, y, height=height, images=[image], shapes=shapes, margin={"l": 8, "r": 8, "t": 8, "b": 8}
    )


def path_places(lens: Lens) -> list[float | None]:
    """(K,) the height of what was taken, in rows.

    Between two rows where its layer is not shown; None where its readout is not.
    """
    layers = [row.layer for row in lens.rows if row.readout in (HEAD, DECODER)]
    first = len(lens.rows) - len(layers)
    found: list[float | None] = []
    for choice in lens.taken:
        row = lens.row_of(choice)
        if row is None and choice.readout == HEAD:
            found.append(float(np.interp(choice.layer, layers, np.arange(len(layers)) + first)))
        else:
            found.append(row)
    return found


def row_label(row: ExitChoice, num_blocks: int) -> str:
    """In short, for the axis."""
    if row.readout in (HEAD, DECODER):
        return f"{row.layer} full" if row.layer == num_blocks else str(row.layer)
    return "other network" if row.readout == NETWORK else row.readout


def choice_name(choice: ExitChoice, num_blocks: int) -> str:
    """In words."""
    if choice.readout == NETWORK:
        return "the other network"
    if choice.readout not in (HEAD, DECODER):
        return f"{choice.readout}, no block"
    if choice.layer == num_blocks:
        return "the full network"
    return f"layer {choice.layer}, by " + ("its head" if choice.readout == HEAD else "the decoder")


def about_cell(lens: Lens, timesteps: list[int], r: int, k: int) -> str:
    """Everything about one cell, for the hover."""
    row, step = lens.rows[r], lens.steps[k]
    num_blocks = max(known.layer for known in lens.rows)
    lines = [f"timestep {timesteps[step]} (step {step})", choice_name(row, num_blocks)]
    if not lens.known[r, k]:
        return "<br>".join([*lines, "no prediction here"])
    if not np.isnan(lens.uncertainty[r, k]):
        lines.append(f"u = {lens.uncertainty[r, k]:.4f}")
    lines.append(f"true loss (RMS of ε): {lens.error[r, k]:.4f}")
    if lens.row_of(lens.taken[k]) == r:
        lines.append("<b>taken by the sampling</b>")
    return "<br>".join(lines)


def _box(column: int, row: float, line: dict[str, Any]) -> dict[str, Any]:
    edges = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
    return {"type": "rect", **edges, "line": line}
