"""Measures to sort images by: one number per sample, computed once and cached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from numpy.typing import NDArray

from app.state import cache
from app.state.selection import current, select_trace
from app.state.traces import closest_measured, full_of
from app.widgets import inputs
from deediff.analysis.per_sample import exit_layer_per_sample, gflops_per_sample, uncertainty_per_sample
from deediff.errors import UserError
from deediff.quality.pairs import image_distances
from deediff.traces.reader import Trace


@dataclass(frozen=True)
class Order:
    """One measure."""

    label: str
    help: str
    text: str  # format of one value
    most_first: bool  # whether the highest values come first
    count: Callable[[Trace], pd.Series]  # by sample number
    against_full: bool = False  # a comparison with the full network's image


def _distance(column: str) -> Callable[[Trace], pd.Series]:
    def count(trace: Trace) -> pd.Series:
        full = full_of(trace)
        if full is None:
            raise UserError(
                f"{trace.path.name} has no trace of the full network to compare with: sample one with policy never, "
                "and its solver, steps, seed and checkpoint, into the same run"
            )
        table = _distances(str(trace.path), cache.stamp(trace), str(full.path), cache.stamp(full))
        return table.set_index("sample")[column]

    return count


def _number(trace: Trace) -> pd.Series:
    count = trace.meta.num_samples
    return pd.Series(np.arange(count), index=np.arange(count))


def _gflops(trace: Trace) -> pd.Series:
    return gflops_per_sample(trace) * len(trace.timesteps)


ORDERS = {
    "sample": Order("Sample number", "The order of sampling.", "{:.0f}", False, _number),
    "exit": Order("Mean exit layer", "Over all steps; early exits first.", "{:.2f}", False, exit_layer_per_sample),
    "gflops": Order("GFLOPs per image", "Cost of all steps, evaluated UEMs included.", "{:.4g}", False, _gflops),
    "u": Order(
        "Uncertainty",
        "Mean over steps of u at the exit; of the deepest UEM at steps without an early exit.",
        "{:.4f}",
        True,
        uncertainty_per_sample,
    ),
    "change": Order(
        "Change",
        "Mean absolute difference, in grey levels (0 – 255), from the full network's image of the same seed.",
        "{:.1f}",
        True,
        _distance("change"),
        True,
    ),
    "psnr": Order("PSNR", "Against the full network's image, in dB.", "{:.1f} dB", False, _distance("psnr"), True),
    "ssim": Order("SSIM", "Against the full network's image; 1: equal.", "{:.3f}", False, _distance("ssim"), True),
}


ORDER, REVERSE = "order", "reverse"  # keys, in the URL as in the session


def sample_measure(trace: Trace, name: str) -> pd.Series:
    """The measure of every sample, by its number. Raises UserError where the trace lacks it."""
    return _sample_measure(str(trace.path), cache.stamp(trace), name)


def sorted_samples(trace: Trace, name: str, reverse: bool) -> NDArray[np.int64]:
    """Sample numbers by measure; equal ones by number. Raises UserError as `sample_measure`."""
    values = sample_measure(trace, name)
    falling = ORDERS[name].most_first != reverse
    return values.sort_values(ascending=not falling, kind="stable", na_position="last").index.to_numpy()


def choose_order() -> tuple[str, bool]:
    """The widgets: a measure, and whether its order is reversed."""
    name = inputs.selectbox(
        "Sort by",
        list(ORDERS),
        ORDER,
        width=190,
        on_change=_leave_full,
        format_func=lambda name: ORDERS[name].label,
        help="\n".join(f"- *{order.label}*: {order.help}" for order in ORDERS.values()),
    )
    return name, inputs.toggle("Reverse", REVERSE, False)


def _leave_full() -> None:
    """A comparison with the full network begins with a trace that has exits: its own images differ by 0."""
    selected = current()
    if not ORDERS[st.session_state[ORDER]].against_full or selected.trace is None or not selected.trace.meta.is_full:
        return
    found = selected.other if selected.other is not None and not selected.other.meta.is_full else None
    found = found or closest_measured(selected)
    if found is not None:
        select_trace(found, "A")


def chosen_order() -> tuple[str, bool]:
    """The same on a page without the widgets."""
    name, reverse = inputs.unseen(ORDER, "sample", list(ORDERS)), inputs.unseen(REVERSE, False, [False, True])
    return name, reverse


def samples_in_order(trace: Trace) -> NDArray[np.int64]:
    """Sample numbers as *Images* sorts them; by number where this trace lacks the measure."""
    name, reverse = chosen_order()
    try:
        return sorted_samples(trace, name, reverse)
    except UserError:
        return sorted_samples(trace, "sample", reverse)


@st.cache_resource(max_entries=64, show_spinner="Reading the trace …")
def _sample_measure(folder: str, stamp: int, name: str) -> pd.Series:
    return ORDERS[name].count(cache.get_trace(Path(folder)))


@st.cache_resource(max_entries=32, show_spinner="Comparing with the full network's images …")
def _distances(folder: str, stamp: int, full: str, full_stamp: int) -> pd.DataFrame:
    return image_distances(cache.get_trace(Path(folder)), cache.get_trace(Path(full)))
