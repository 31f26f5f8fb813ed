"""Stored data of the selected sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.state.selection import Selection
from deediff.traces.images import decode_png
from deediff.traces.reader import Trace


def number_of(selected: Selection) -> int:
    """The selected sample, or the first one."""
    return 0 if selected.sample is None else selected.sample


def stored_image(trace: Trace | None, number: int) -> NDArray[np.uint8] | None:
    """(C,H,W), where the trace holds it."""
    if trace is None or (found := trace.samples([number])).empty or found["png"].iloc[0] is None:
        return None
    pixels = decode_png(found["png"].iloc[0])
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
