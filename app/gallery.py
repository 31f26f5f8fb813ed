"""Grids of small images as HTML: crisp when enlarged, with a caption and, if wanted, an exit strip under each."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from numpy.typing import NDArray

import figures
from deediff.traces.writer import encode_png

WIDTH = 84  # least width of an image in pixels, where as many as fit stand side by side


@dataclass(frozen=True)
class Tile:
    """One image."""

    png: bytes
    caption: str
    hover: str
    strip: bytes | None = None  # PNG, one pixel per step; empty: only its place, to stay level with a neighbour


def strip(exit_layers: NDArray[np.int8], steps: int, num_blocks: int) -> bytes:
    """(steps so far,) exit layers → a PNG one pixel high; steps still to come are mid-grey."""
    colors = np.full((steps, 3), 128, np.uint8)
    colors[: len(exit_layers)] = figures.layer_colors(exit_layers, num_blocks)
    return encode_png(colors.T[:, None, :])


def show(tiles: Sequence[Tile], columns: int | None = None) -> None:
    """In so many columns; without a number, in as many as fit."""
    figures_html = "".join(_figure(tile) for tile in tiles)
    count, width = (columns, "0") if columns is not None else ("auto-fill", f"{WIDTH}px")
    template = f"repeat({count}, minmax({width}, 1fr))"
    st.html(f'<div class="gallery" style="grid-template-columns: {template}">{figures_html}</div>')


def _figure(tile: Tile) -> str:
    hover = html.escape(tile.hover, quote=True)
    bar = ""
    if tile.strip is not None:
        bar = f'<img class="strip" alt="" src="{_url(tile.strip)}">' if tile.strip else '<div class="strip"></div>'
    return (
        f'<figure title="{hover}"><img alt="{hover}" src="{_url(tile.png)}">{bar}'
        f"<figcaption>{html.escape(tile.caption)}</figcaption></figure>"
    )


def _url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
