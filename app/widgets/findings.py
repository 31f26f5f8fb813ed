"""What a picture shows, in one sentence from its numbers: the titles of the panels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.variance import VarianceSplit


def about_exits(mean: NDArray[np.float64], num_blocks: int) -> str:
    """From the mean exit layer of each step (S,), first step first."""
    third = max(1, len(mean) // 3)
    early, late = float(mean[:third].mean()), float(mean[-third:].mean())
    if mean.min() > num_blocks - 0.005:
        return "No sample leaves early, at any timestep"
    if mean.max() < 0.005:
        return "Every sample skips every step"
    if abs(late - early) < num_blocks / 20:
        return f"Samples leave at much the same depth throughout: mean exit layer {mean.mean():.1f} of {num_blocks}"
    when = "early, while the image is mostly noise" if early < late else "late, when the image is nearly clean"
    return f"Samples skip most {when}: mean exit layer {early:.1f} in the first third of steps, {late:.1f} in the last"


def about_gap(estimated: float, measured: float) -> str:
    """Layer ratios: the open-loop estimate against a trace that was really sampled."""
    gap = estimated - measured
    if abs(gap) < 0.005:
        return "The open-loop estimate agrees with what was measured"
    side = "above" if gap > 0 else "below"
    return f"The open-loop estimate of the layer ratio lies {abs(gap):.3f} {side} the measurement"


def about_uncertainty(mean: NDArray[np.float64], timesteps: list[int]) -> str:
    """From mean u (S, N), NaN where no sample arrived."""
    if np.isnan(mean).all():
        return "No uncertainty was recorded"
    low, high = np.unravel_index(np.nanargmin(mean), mean.shape), np.unravel_index(np.nanargmax(mean), mean.shape)
    return (
        f"Surest at layer {low[1]}, t = {timesteps[low[0]]} (u {mean[low]:.3f}), "
        f"least sure at layer {high[1]}, t = {timesteps[high[0]]} (u {mean[high]:.3f})"
    )


def about_rises(rising: NDArray[np.bool_], known: NDArray[np.bool_]) -> str:
    """From where u rises with depth, and where two neighbouring layers are known: (S, N−1) both."""
    if not known.any():
        return "too few layers were reached to tell whether u falls with depth"
    if not rising.any():
        return "u falls with depth everywhere"
    return f"white lines: u rises with depth in {rising[known].mean():.0%} of steps from one layer to the next"


def about_depth(mean: NDArray[np.float64]) -> str:
    """From mean u over the layers of one timestep (N,)."""
    known = np.flatnonzero(~np.isnan(mean))
    if len(known) < 2:
        return "Too few layers were reached to draw a curve"
    first, last = mean[known[0]], mean[known[-1]]
    rises = [int(i) for i in known[1:] if mean[i] > mean[i - 1] + 0.01 * np.nanmax(mean)]
    path = f"from {first:.3f} at layer {known[0]} to {last:.3f} at layer {known[-1]}"
    if not rises:
        return f"Going deeper never adds uncertainty: {path}"
    return f"u does not only fall with depth: {path}, rising at layer {', '.join(map(str, rises[:4]))}" + (
        " …" if len(rises) > 4 else ""
    )


def about_path(exit_layers: NDArray[np.int8], num_blocks: int) -> str:
    """From one sample's exit layers (S,)."""
    stays = float((exit_layers == num_blocks).mean())
    if stays == 1:
        return f"It never leaves early: all {num_blocks} blocks at every step"
    if stays == 0:
        return f"It leaves early at every step, after {exit_layers.mean():.1f} of {num_blocks} blocks on average"
    left = exit_layers[exit_layers < num_blocks]
    return f"It leaves early at {1 - stays:.0%} of the steps, then after {left.mean():.1f} of {num_blocks} blocks"


def about_moment(exits: NDArray[np.int64], timestep: int) -> str:
    """From the exit counts of one step (N+1,)."""
    share = exits / exits.sum()
    top = int(share.argmax())
    last = len(exits) - 1
    where = f"do not leave before the last of {last} blocks" if top == last else f"leave at layer {top}"
    if share[top] > 0.9995:
        return f"At t = {timestep} all samples {where}"
    second = int(np.argsort(share)[-2])
    rest = "never leave early" if second == last else f"at layer {second}"
    return f"At t = {timestep} {share[top]:.0%} of samples {where}, {share[second]:.0%} {rest}"


def about_depth_reached(arriving: NDArray[np.float64]) -> str:
    """From the share of samples that arrive at each layer (N+1,)."""
    if arriving[-1] > 0.9995:
        return "Every sample runs the whole network"
    drops = -np.diff(arriving)
    layer = int(drops.argmax())
    return (
        f"{arriving[-1]:.0%} of decisions run the whole network; most exits, {drops[layer]:.0%}, are at layer {layer}"
    )


def about_spread(deviation: NDArray[np.float64], timesteps: list[int]) -> str:
    """From the standard deviation of exit layers over samples at each step (S,)."""
    if deviation.max() < 0.05:
        return "At every timestep all samples leave at the same layer"
    step = int(deviation.argmax())
    return (
        f"Samples differ most at t = {timesteps[step]}: ± {deviation[step]:.1f} layers, "
        f"± {deviation.mean():.1f} on average over the timesteps"
    )


def about_variance(split: VarianceSplit) -> str:
    """Of the exit layer."""
    t, s = split.timestep, split.sample
    span = f"[{max(0.0, t.low):.0%}, {t.high:.0%}]"
    if t.value > 0.9:
        return f"The timestep decides: it explains {t.value:.0%} {span} of the exit layer's variance"
    return (
        f"The timestep explains {t.value:.0%} {span} of the exit layer's variance, "
        f"the sample {max(0.0, s.value):.0%} [{max(0.0, s.low):.0%}, {s.high:.0%}]"
    )


def about_calibration(ece: NDArray[np.float64], rank: NDArray[np.float64], layer: int | None) -> str:
    """From ECE and rank correlation over timesteps and layers (T', N), of one layer where one is chosen."""
    whose = "u" if layer is None else f"u at layer {layer}"
    if layer is not None:
        ece, rank = ece[:, [layer]], rank[:, [layer]]
    if np.isnan(ece).all():
        return f"Layer {layer} has no exit, so nothing to calibrate"
    order = f"ranks images by it with ρ = {np.nanmean(rank):.2f}" if not np.isnan(rank).all() else "ranks nothing"
    return f"On average over timesteps {whose} misses the actual error by {np.nanmean(ece):.3f} (ECE) and {order}"


def about_extremes(values: NDArray[np.float64], timesteps: list[int], name: str) -> str:
    """From one number per timestep and layer, NaN where there is none: (T', N)."""
    if np.isnan(values).all():
        return f"No layer has an exit, so there is no {name}"
    low, high = (
        np.unravel_index(np.nanargmin(values), values.shape),
        np.unravel_index(np.nanargmax(values), values.shape),
    )
    return (
        f"{name[0].upper()}{name[1:]} from {values[low]:.3f} (layer {low[1]}, t = {timesteps[low[0]]}) "
        f"to {values[high]:.3f} (layer {high[1]}, t = {timesteps[high[0]]})"
    )


def about_map(u: NDArray[np.float32], layer: int) -> str:
    """From u of each patch (h, w)."""
    row, column = np.unravel_index(int(np.nanargmax(u)), u.shape)
    return (
        f"At layer {layer} patches differ from {np.nanmin(u):.3f} to {np.nanmax(u):.3f}; "
        f"least sure at row {row}, column {column}"
    )
