"""Grids of small images: pixels stay sharp, with a caption and optionally an exit strip under each.

A click returns the number of the image, hovering shows the exact exit layer, and updates change the images in place,
so that images denoise without flicker.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from app.state import shown
from app.state.shown import Shown
from app.widgets import figures

WIDTH = 84  # least width of an image in pixels, where the number of columns follows the window
LEAST, GAP = 44, 8  # pixels: least width of an image in a given number of columns; between two columns, as in the CSS
ASSETS = Path(__file__).parent


@dataclass(frozen=True)
class Tile:
    """One image."""

    png: bytes
    caption: str
    hover: str
    strip: NDArray[np.int8] | None = None  # (steps so far,) exit layers; None: no strip
    place: bool = False  # without a strip: keep its space, to align with a grid that has strips
    number: int | None = None  # returned by a click; None: not clickable


def encode(image: NDArray[np.uint8]) -> bytes:
    """(C,H,W) → PNG, compressed for speed: it is only sent to the browser."""
    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def gallery(
    key: str,
    tiles: Sequence[Tile],
    columns: int | None = None,  # None: as many as fit
    timesteps: Sequence[int] = (),  # of the strips
    num_blocks: int = 1,
    chosen: int | None = None,  # the tile to mark, by its number
    on_pick: Callable[[int], None] | None = None,  # gets the number of a clicked tile, before the next run
) -> None:
    """Draw a grid; `key` keeps it the same one from run to run."""

    def picked() -> None:
        number = (st.session_state.get(key) or {}).get("picked")
        if on_pick is not None and number is not None:
            on_pick(int(number))

    scale = figures.layer_colors(np.arange(num_blocks + 1, dtype=np.int8), num_blocks)
    content: dict[str, Any] = {
        "columns": _columns(columns),
        "tiles": [_content(tile) for tile in tiles],
        "timesteps": list(timesteps),
        "colors": scale.tolist(),
        "chosen": chosen,
        "clickable": on_pick is not None,
    }
    images = tuple((tile["src"], tile["caption"]) for tile in content["tiles"])
    shown.add(key, Shown(key.capitalize(), f"{len(tiles)} images", images=images))
    _component()(key=key, data=content, on_picked_change=picked)


def _columns(most: int | None) -> str:
    """As many as fit, or exactly `most` where each then has LEAST pixels."""
    least = f"{WIDTH}px" if most is None else f"max({LEAST}px, (100% - {GAP * (most - 1) + 1}px) / {most})"
    return f"repeat(auto-fill, minmax({least}, 1fr))"


def _content(tile: Tile) -> dict[str, Any]:
    return {
        "src": "data:image/png;base64," + base64.b64encode(tile.png).decode(),
        "caption": tile.caption,
        "hover": tile.hover,
        "strip": None if tile.strip is None else tile.strip.tolist(),
        "place": tile.place,
        "number": tile.number,
    }


@cache
def _component() -> Any:
    css, js = ((ASSETS / f"gallery.{kind}").read_text() for kind in ("css", "js"))
    return st.components.v2.component(
        "gallery", html='<div class="gallery"></div><div class="tip"></div>', css=css, js=js
    )
