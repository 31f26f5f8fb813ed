"""The image of the page, and everything the network computes from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
import torch
from numpy.typing import NDArray

from app.state import cache
from app.state.selection import Selection, select
from app.views.method.explained import Explained, explain
from app.widgets.gallery import encode
from app.widgets.plot import Point
from deediff.datasets import to_uint8
from deediff.models import EarlyExitModel
from deediff.traces.reader import Trace

NOISE_RANGE = 3.0  # noise is shown from −3 (black) to 3 (white)
TARGETS = {"epsilon": "the noise ε", "x0": "the clean image x₀", "v": "the velocity v"}


@dataclass(frozen=True)
class Example:
    """The data of every panel."""

    e: Explained
    model: EarlyExitModel
    alphas_bar: NDArray[np.float64]  # (T,)
    sample: int  # its number in the trace
    layer: int  # the selected exit, else the one taken
    highest: float  # upper end of the colour scale of u and errors

    @property
    def predicts_image(self) -> bool:
        """The target is the clean image, and shown as one; ε and v are shown on a wider range."""
        return self.model.prediction == "x0"

    @property
    def target(self) -> str:
        """The training target in words."""
        return TARGETS[self.model.prediction]

    @property
    def exit_target(self) -> str:
        """What the exits learn, in words."""
        return "the full network's prediction" if self.model.exit_target == "full" else self.target


@st.cache_data(max_entries=64, show_spinner="Evaluating every exit of the network …")
def explained(
    checkpoint: Path, stamp: int, trace: Path, sample: int, timestep: int, _png: bytes, label: int
) -> Explained:
    """Cached, so that another panel's widget does not run the network again."""
    model, schedule = cache.get_model(checkpoint)
    return explain(model, schedule, _png, timestep, sample, label)


def find_image(selected: Selection) -> tuple[Trace, int, bytes] | None:
    """A trace of the run with images, a sample number and its PNG: the selected ones where they have an image."""
    for trace in [t for t in (selected.trace, selected.other, *selected.siblings) if t is not None]:
        number = selected.sample or 0
        found = trace.samples(range(number, number + 1))
        if not len(found) or found["png"].iloc[0] is None:  # that sample's part is missing: the first of another part
            found = next((s for p in trace.image_parts[:1] if len(s := trace.samples(_part_range(trace, p)))), found)
        found = found[found["png"].notna()]
        if len(found):
            return trace, int(found["sample"].iloc[0]), found["png"].iloc[0]
    return None


def _part_range(trace: Trace, part: int) -> range:
    """Sample numbers of a part."""
    size = int(trace.meta.batch_size or trace.meta.num_samples)
    return range(part * size, (part + 1) * size)


def label_of(trace: Trace, sample: int) -> int:
    """Its class; 0 where there are none."""
    classes = trace.meta.settings and trace.meta.settings.classes
    return int(classes[sample % len(classes)]) if classes else 0


def image_png(image: NDArray[np.float32], noise: bool = False) -> bytes:
    """(C,H,W) → PNG; noise on a wider range."""
    x = torch.from_numpy(image)
    return encode(to_uint8(x / NOISE_RANGE if noise else x).numpy())


def select_exit(point: Point) -> None:
    """A click on an exit selects its layer."""
    if point["customdata"] is not None:
        select(layer=int(point["customdata"][0]))
