"""Films side by side or in pairs under one divider, and the one clock that plays all of them in the browser."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from app.state import link, shown
from app.state.shown import Shown
from app.widgets import inputs
from app.widgets.gallery import WIDTH, encode

SIDE, WIPE = "side", "wipe"
MODE = "images_as"  # in the URL, where it is not side by side
_MODES = {SIDE: "Side by side", WIPE: "Wipe"}
_FOLDER = Path(__file__).parent
_CONTROLS = '<div class="controls">{}</div>'


@dataclass(frozen=True)
class Reel:
    """One film."""

    title: str
    frames: NDArray[np.uint8]  # (F,C,H,W)
    captions: Sequence[str]  # (F,)
    timesteps: Sequence[int]  # (F,) of the frames, by which films are aligned
    known: Sequence[bool] | None = None  # (F,) whether there is an image; None: everywhere


@dataclass(frozen=True)
class Pair:
    """Two images of equal seed, as PNG."""

    a: bytes
    b: bytes
    label: str = ""


def wiping() -> bool:
    """Whether images of equal seed are under one divider, as `choose_mode` has set it on this page."""
    return bool(st.session_state.get(MODE) == WIPE)


def choose_mode() -> bool:
    """Draw the control that puts images of equal seed under one divider, before them; whether it does."""
    with link.one_step():
        mode = inputs.segmented_control(
            "Images of equal seed",
            list(_MODES),
            MODE,
            SIDE,
            format_func=_MODES.__getitem__,
            width="content",
            label_visibility="collapsed",
            help="*Wipe* puts two images of equal seed under one divider: drag it, or move it by the arrow keys; "
            "F changes the sides.",
        )
        if mode == SIDE:
            link.write({MODE: None})
    return mode == WIPE


def clock(
    key: str,  # keeps it the same one from run to run
    timesteps: Sequence[int],  # (F,) that it plays
    start: int,  # the frame that is shown first
    on_stop: Callable[[int], None],  # gets the timestep at which it was stopped, before the next run
    follows: str = "",  # key of a figure with one column per frame, in which the frame is marked while playing
) -> None:
    """Draw the button and the slider of every film on the page; playing needs no run of the script."""

    def stopped() -> None:
        if (t := (st.session_state.get(key) or {}).get("stopped")) is not None:
            on_stop(int(t))

    content = {"timesteps": list(timesteps), "start": start, "follows": "-".join(follows.split())}
    _clock()(key=key, data=content, on_stopped_change=stopped)


def player(key: str, reels: Sequence[Reel]) -> None:
    """Draw films side by side, at the time of the page's clock."""
    _player()(key=key, data={"reels": [_content(reel) for reel in reels]})


def wipe(key: str, a: Reel, b: Reel) -> None:
    """Draw two films under one divider, at the time of the page's clock."""
    sides = [_content(reel) for reel in (a, b)]
    sources = [side.pop("sources") for side in sides]
    _wipe()(key=key, data={"pairs": [{"sources": sources, "label": ""}], "sides": sides, "columns": "1fr"})


def wipe_images(key: str, titles: tuple[str, str], pairs: Sequence[Pair], columns: int | None = None) -> None:
    """Draw a grid of pairs under dividers that move together; without `columns`, as many as fit."""
    wide = f"repeat(auto-fill, minmax({WIDTH}px, 1fr))" if columns is None else f"repeat({columns}, 1fr)"
    content = [{"sources": [[_source(pair.a)], [_source(pair.b)]], "label": pair.label} for pair in pairs]
    sides = [{"title": title, "captions": [""], "timesteps": [0]} for title in titles]
    images = [
        (pair["sources"][k][0], f"{'AB'[k]}: {title}") for pair in content for k, title in enumerate(titles)
    ]  # the report has no divider
    shown.add(key, Shown(key.capitalize(), f"{len(pairs)} pairs of equal seed", images=tuple(images)))
    _wipe()(key=key, data={"pairs": content, "sides": sides, "columns": wide})


def _content(reel: Reel) -> dict[str, Any]:
    known = [True] * len(reel.frames) if reel.known is None else reel.known
    sources = [_source(encode(frame)) if there else "" for frame, there in zip(reel.frames, known, strict=True)]
    return {
        "title": reel.title,
        "sources": sources,
        "captions": list(reel.captions),
        "timesteps": [int(t) for t in reel.timesteps],
    }


def _source(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


@cache
def _clock() -> Any:
    html = '<button></button><input type="range" aria-label="Denoising time of every film"><output></output>'
    return _component("clock", _CONTROLS.format(html), ["controls.css"], ["time.js", "clock.js"])


@cache
def _player() -> Any:
    return _component("player", '<div class="reels"></div>', ["player.css"], ["time.js", "player.js"])


@cache
def _wipe() -> Any:
    controls = '<button title="changes the sides; key F">⇄ Flip (F)</button><input type="range" aria-label="Divider">'
    names = '<div class="names"><span class="left"></span><span class="right"></span></div>'
    html = f'{names}<div class="pairs"></div><div class="at"></div>{_CONTROLS.format(controls)}'
    return _component("wipe", html, ["controls.css", "wipe.css"], ["time.js", "wipe.js"])


def _component(name: str, html: str, css: list[str], js: list[str]) -> Any:
    styles, script = ("\n".join((_FOLDER / file).read_text(encoding="utf-8") for file in files) for files in (css, js))
    return st.components.v2.component(name, html=html, css=styles, js=script)
