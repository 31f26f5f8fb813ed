"""The timesteps of a sampling job: spaced over a schedule, or given one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError

SPACINGS = ("trailing", "linspace", "quadratic", "log-snr")


def spaced_timesteps(schedule: Schedule, steps: int, spacing: str, multistep: bool = False) -> list[int]:
    """`steps` timesteps in T−1 … 0, descending.

    - trailing: T−1, T−1−T/steps, …, about T/steps − 1 (Lin et al. 2024, Table 2)
    - linspace: T−1 … 0, both ends included (the same table); for a multistep solver T−1 … about T/steps, as in
      diffusers: the step to t = 0 is so long in log-SNR that its extrapolation from the step before fails
    - quadratic: linear in √t, both ends included (Song et al. 2021, appendix D.2): dense at small t
    - log-snr: linear in log(ᾱ/(1−ᾱ)), both ends included (Lu et al. 2022, section 3.4 of DPM-Solver)

    Timesteps that round to the same number are moved apart. Raises UserError when `steps` is outside 1 … T or the
    spacing is unknown.
    """
    total = schedule.num_timesteps
    if not 1 <= steps <= total:
        raise UserError(f"steps is {steps}, expected 1 … {total} (the training's number of timesteps)")
    if spacing == "trailing":
        t = np.round(np.arange(total, 0, -total / steps))[:steps] - 1
    elif spacing == "linspace" and multistep:
        t = _distinct(np.linspace(total - 1, 0, steps + 1)[:-1], total)
    elif spacing == "linspace":
        t = np.round(np.linspace(total - 1, 0, steps))
    elif spacing == "quadratic":
        t = _distinct(np.linspace((total - 1) ** 0.5, 0, steps) ** 2, total)
    elif spacing == "log-snr":
        a = schedule.alphas_bar.numpy()
        log_snr = np.log(a / (1 - a))  # descending in t
        even = np.linspace(log_snr[-1], log_snr[0], steps)
        t = _distinct(np.interp(even, log_snr[::-1], np.arange(total)[::-1]), total)
    else:
        raise UserError(f"unknown spacing {spacing!r}, expected one of: {', '.join(SPACINGS)}")
    return [int(v) for v in t]


def _distinct(t: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """Descending values in 0 … T−1, rounded to distinct whole numbers with the fewest shifts."""
    order = np.arange(len(t))
    ascending = np.round(t)[::-1]
    apart = np.maximum.accumulate(ascending - order) + order  # each at least one above the one before
    return np.minimum(apart, total - len(t) + order)[::-1]


def check_timesteps(timesteps: Sequence[int], num_timesteps: int) -> list[int]:
    """The timesteps as a list. Raises UserError unless they descend strictly within T−1 … 0."""
    found = list(timesteps)
    if not found:
        raise UserError(f"there are no timesteps: give at least one of 0 … {num_timesteps - 1}")
    for t in found:
        if not 0 <= t < num_timesteps:
            raise UserError(f"timestep {t} is out of range, expected 0 … {num_timesteps - 1}")
    for a, b in pairwise(found):
        if a <= b:
            raise UserError(f"timestep {b} follows {a}: give each timestep once, in descending order")
    return found
