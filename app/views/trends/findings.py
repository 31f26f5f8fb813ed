"""Titles of the figures: the finding in one sentence, from the numbers drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.variance import VarianceSplit

Floats = NDArray[np.float64]


def about_gap(estimated: float, measured: float) -> str:
    """Layer ratios: the open-loop estimate against a measured trace."""
    gap = estimated - measured
    if abs(gap) < 0.005:
        return "The open-loop estimate agrees with the measurement"
    side = "above" if gap > 0 else "below"
    return f"The open-loop estimate of the layer ratio is {abs(gap):.3f} {side} the measurement"


def about_moment(exits: NDArray[np.int64], timestep: int) -> str:
    """From the exit counts of one step (N+1,)."""
    share = exits / exits.sum()
    top = int(share.argmax())
    last = len(exits) - 1
    where = f"run all {last} blocks" if top == last else f"exit at layer {top}"
    if share[top] > 0.9995:
        return f"At t = {timestep}, all samples {where}"
    second = int(np.argsort(share)[-2])
    rest = f"run all {last} blocks" if second == last else f"at layer {second}"
    return f"At t = {timestep}, {share[top]:.0%} of samples {where}, {share[second]:.0%} {rest}"


def about_depth_reached(arriving: Floats) -> str:
    """From the share of samples that arrive at each layer (N+1,)."""
    if arriving[-1] > 0.9995:
        return "Every sample runs the whole network"
    drops = -np.diff(arriving)
    layer = int(drops.argmax())
    return (
        f"{arriving[-1]:.0%} of decisions run the whole network; most exits, {drops[layer]:.0%}, are at layer {layer}"
    )


def about_spread(deviation: Floats, timesteps: list[int]) -> str:
    """From the standard deviation of exit layers over samples at each step (S,)."""
    if deviation.max() < 0.05:
        return "At every timestep all samples exit at the same layer"
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
        return f"The timestep explains {t.value:.0%} {span} of the exit layer's variance"
    return (
        f"The timestep explains {t.value:.0%} {span} of the exit layer's variance, "
        f"the sample {max(0.0, s.value):.0%} [{max(0.0, s.low):.0%}, {s.high:.0%}]"
    )
