"""Films side by side, played in the browser: one button and one slider over time for all of them."""

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

from app.widgets.gallery import encode

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Reel:
    """One film."""

    title: str
    frames: NDArray[np.uint8]  # (F,C,H,W)
    captions: Sequence[str]  # (F,)
    known: Sequence[bool] | None = None  # (F,) whether there is an image; None: everywhere


def player(
    key: str,  # keeps it the same one from run to run
    reels: Sequence[Reel],
    labels: Sequence[str],  # (F,) of the frames, e.g. "t = 500"
    start: int,  # the frame that is shown first
    on_stop: Callable[[int], None] | None = None,  # gets the frame at which it was stopped, before the next run
    follows: str = "",  # key of a figure with one column per frame, in which the frame is marked while playing
) -> None:
    """Draw the films; playing needs no run of the script."""

    def stopped() -> None:
        frame = (st.session_state.get(key) or {}).get("stopped")
        if on_stop is not None and frame is not None:
            on_stop(int(frame))

    content = {
        "reels": [_content(reel) for reel in reels],
        "labels": list(labels),
        "start": start,
        "reports": on_stop is not None,
        "follows": "-".join(follows.split()),
    }
    _component()(key=key, data=content, on_stopped_change=stopped)


def _content(reel: Reel) -> dict[str, Any]:
    known = [True] * len(reel.frames) if reel.known is None else reel.known
    sources = [
        "data:image/png;base64," + base64.b64encode(encode(frame)).decode() if there else ""
        for frame, there in zip(reel.frames, known, strict=True)
    ]
    return {"title": reel.title, "sources": sources, "captions": list(reel.captions)}


@cache
def _component() -> Any:
    css, js = ((_FOLDER / f"player.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    html = '<div class="reels"></div><div class="controls"><button></button><input type="range"><output></output></div>'
    return st.components.v2.component("player", html=html, css=css, js=js)
