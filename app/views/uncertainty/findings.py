"""Titles of the figures: the finding in one sentence, from the numbers drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def about_uncertainty(mean: Floats, timesteps: list[int]) -> str:
    """From mean u (S, N), NaN where no sample arrived."""
    if np.isnan(mean).all():
        return "No uncertainty was recorded"
    low, high = np.unravel_index(np.nanargmin(mean), mean.shape), np.unravel_index(np.nanargmax(mean), mean.shape)
    return (
        f"Lowest mean u: layer {low[1]}, t = {timesteps[low[0]]} ({mean[low]:.3f}); "
        f"highest: layer {high[1]}, t = {timesteps[high[0]]} ({mean[high]:.3f})"
    )


def about_rises(rising: NDArray[np.bool_], known: NDArray[np.bool_]) -> str:
    """From where u rises with depth, and where two neighbouring layers are known: (S, N−1) both."""
    if not known.any():
        return "too few layers were reached to compare u over depth"
    if not rising.any():
        return "u falls with depth everywhere"
    return f"white lines: u rises from one layer to the next in {rising[known].mean():.0%} of cells"


def about_depth(mean: Floats) -> str:
    """From mean u over the layers of one timestep (N,)."""
    known = np.flatnonzero(~np.isnan(mean))
    if len(known) < 2:
        return "Too few layers were reached to draw a curve"
    first, last = mean[known[0]], mean[known[-1]]
    rises = [int(i) for i in known[1:] if mean[i] > mean[i - 1] + 0.01 * np.nanmax(mean)]
    path = f"from {first:.3f} at layer {known[0]} to {last:.3f} at layer {known[-1]}"
    if not rises:
        return f"u falls with depth: {path}"
    return f"u does not only fall with depth: {path}, rising at layer {', '.join(map(str, rises[:4]))}" + (
        " …" if len(rises) > 4 else ""
    )


def about_calibration(ece: Floats, rank: Floats, layer: int | None) -> str:
    """From ECE and rank correlation over timesteps and layers (T', N), of one layer where one is selected."""
    subject = "u" if layer is None else f"u at layer {layer}"
    if layer is not None:
        ece, rank = ece[:, [layer]], rank[:, [layer]]
    if np.isnan(ece).all():
        return f"Layer {layer} has no exit, so there is nothing to calibrate"
    order = f"rank correlation ρ = {np.nanmean(rank):.2f}" if not np.isnan(rank).all() else "no rank correlation"
    return f"Mean over timesteps: {subject} is off the actual error by {np.nanmean(ece):.3f} (ECE), {order}"


def about_extremes(values: Floats, timesteps: list[int], name: str) -> str:
    """From one number per timestep and layer, NaN where there is none: (T', N)."""
    if np.isnan(values).all():
        return f"No layer has an exit, so there is no {name}"
    low = np.unravel_index(np.nanargmin(values), values.shape)
    high = np.unravel_index(np.nanargmax(values), values.shape)
    return (
        f"{name[0].upper()}{name[1:]} from {values[low]:.3f} (layer {low[1]}, t = {timesteps[low[0]]}) "
        f"to {values[high]:.3f} (layer {high[1]}, t = {timesteps[high[0]]})"
    )


def about_map(u: NDArray[np.float32], layer: int) -> str:
    """From u of each patch (h, w)."""
    row, column = np.unravel_index(int(np.nanargmax(u)), u.shape)
    span = f"from {np.nanmin(u):.3f} to {np.nanmax(u):.3f}"
    return f"Layer {layer}: u of patches {span}, highest at row {row}, column {column}"
