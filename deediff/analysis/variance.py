"""Is it the sample or the timestep? Where the variance of exit layers, and of u, comes from.

A trace has one value per sample and timestep: a two-way layout without replication,
x = overall mean + timestep + sample + rest. The rest is interaction (this sample at this timestep)
*and* noise: no analysis of variance can tell the two apart. How much of what the timestep leaves
open is still there one step later says more: independent noise would not stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deediff.errors import UserError
from deediff.traces.reader import Trace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval; NaN where it does not exist."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class VarianceSplit:
    """Of values (samples, steps). timestep + sample + rest = 1; each is unbiased, so it can fall just below 0.

    Neighbours are one step of the trace apart: one timestep in DDPM-1000, twenty in DDIM-50. A sample
    that is special at some timesteps only shows in `stays_next`, hardly in `sample` or `stays_all`.
    """

    samples: int
    steps: int
    total: Estimate  # variance over samples and steps
    timestep: Estimate  # Var(E[x | t]), share of the total
    sample: Estimate  # variance of the sample's main effect, share of the total
    rest: Estimate  # interaction and noise, share of the total
    stays_all: Estimate  # of what is left within a timestep: the sample's main effect
    stays_next: Estimate  # of what is left within a timestep: correlation of neighbouring steps, main effect included


class Moments:
    """Adds up blocks of whole samples, for the samples as they are and for each resampling of them.

    Resampling is the Poisson bootstrap (Hanley & MacGibbon 2006): every sample is drawn Poisson(1)
    times, which for many samples is drawing them with replacement, and needs no more than sums. The
    timesteps' means are those of the resampling. Memory: (draws + 1) × steps × layers floats,
    whatever the number of samples; the result does not depend on how they are cut into blocks.
    """

    def __init__(self, steps: int, layers: int = 1, draws: int = 1000, seed: int = 0):
        self.samples, self.draws, self._rng = 0, draws, np.random.default_rng(seed)
        rows = draws + 1  # the first holds the samples as they are
        self._weight, self._weight_square = np.zeros(rows), np.zeros(rows)
        self._by_step = np.zeros((rows, steps, layers))
        # Over samples: sums over steps of squares, of neighbours' products; squares at both ends; the sum's square.
        self._sums = np.zeros((rows, 4, layers))

    def add(self, values: ArrayLike) -> Moments:
        """Count samples in: (B, steps, layers). Returns self."""
        x = np.asarray(values, dtype=np.float64)
        weights = np.vstack([np.ones(len(x)), self._rng.poisson(1.0, (len(x), self.draws)).T])
        sums = [
            np.square(x).sum(axis=1),
            (x[:, 1:] * x[:, :-1]).sum(axis=1),
            np.square(x[:, 0]) + np.square(x[:, -1]),
            np.square(x.sum(axis=1)),
        ]
        self.samples += len(x)
        self._weight += weights.sum(axis=1)
        self._weight_square += np.square(weights).sum(axis=1)
        self._by_step += (weights @ x.reshape(len(x), -1)).reshape(self._by_step.shape)
        self._sums += (weights @ np.stack(sums, axis=1).reshape(len(x), -1)).reshape(self._sums.shape)
        return self

    @np.errstate(divide="ignore", invalid="ignore")  # where there is nothing to divide by, the answer is NaN
    def split(self) -> list[VarianceSplit]:
        """One per layer. Raises UserError for fewer than two samples: nothing varies within a timestep."""
        if self.samples < 2:
            raise UserError("a variance between samples needs at least two of them")
        steps = self._by_step.shape[1]
        weight = self._weight[:, None]
        # 1/n for the samples as they are. A draw repeats some: more noise, and the same formulas remove it,
        # so that the draws scatter around the truth and not around a value that resampling has shifted.
        noise = self._weight_square[:, None] / weight**2
        mean = self._by_step / weight[:, None]  # (draws + 1, steps, layers)
        mean_squares = np.einsum("rsl,rsl->rl", mean, mean)
        squares, products, ends, sum_squares = (self._sums[:, i] / weight for i in range(4))
        # Expected mean squares of the two-way layout (Scheffé 1959, ch. 4), in terms of covariances.
        within = (squares - mean_squares) / steps / (1 - noise)
        of_mean = (sum_squares - np.square(mean.sum(axis=1))) / steps**2 / (1 - noise)  # of a sample's mean
        sample = (steps * of_mean - within) / (steps - 1)  # = mean covariance of two different timesteps
        timestep = mean_squares / steps - np.square(mean.mean(axis=1)) - noise * (within - of_mean)
        end_variance = (ends - np.square(mean[:, 0]) - np.square(mean[:, -1])) / (1 - noise)
        next_covariance = (products - np.einsum("rsl,rsl->rl", mean[:, 1:], mean[:, :-1])) / (1 - noise)
        next_variance = steps * within - end_variance / 2  # of both neighbours, halved
        # Below this, differences of squares are rounding errors: nothing varies.
        nothing = 1e-12 * squares / steps
        total = timestep + within
        total = np.where(total > nothing, total, np.nan)
        left = np.where(within > nothing, within, np.nan)
        shares = timestep / total, sample / total, (within - sample) / total
        stays = sample / left, np.where(within > nothing, next_covariance / next_variance, np.nan)
        return [
            VarianceSplit(self.samples, steps, *(estimate(x[:, layer]) for x in (within + timestep, *shares, *stays)))
            for layer in range(mean.shape[2])
        ]


def estimate(values: Floats) -> Estimate:
    """From [value, value of draw 1, …]: percentiles of the draws that have one."""
    draws = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (np.nan, np.nan)
    return Estimate(float(values[0]), float(low), float(high))


def decompose(values: ArrayLike, draws: int = 1000, seed: int = 0) -> VarianceSplit:
    """Of (samples, steps) in memory. Raises UserError for fewer than two samples."""
    x = np.asarray(values)[:, :, None]
    return Moments(x.shape[1], draws=draws, seed=seed).add(x).split()[0]


def exit_variance(trace: Trace, draws: int = 1000, seed: int = 0) -> VarianceSplit:
    """Of a trace's exit layers, part by part. Raises UserError without rows, or with fewer than two samples."""
    blocks = (layers[:, :, None] for _, layers in trace.iter_exit_layers())
    return _over_parts(trace, blocks, 1, draws, seed)[0]


def uncertainty_variance(trace: Trace, draws: int = 1000, seed: int = 0) -> list[VarianceSplit]:
    """Of a trace's u, for each of N layers, part by part; NaN for a layer that some sample left before.

    Raises UserError when the trace holds no u or no rows, or fewer than two samples.
    """
    return _over_parts(trace, map(trace.uncertainty, trace.parts), trace.num_blocks, draws, seed)


def _over_parts(
    trace: Trace, blocks: Iterable[NDArray[np.generic]], layers: int, draws: int, seed: int
) -> list[VarianceSplit]:
    moments = Moments(len(trace.timesteps), layers, draws, seed)
    for block in blocks:
        moments.add(block)
    if moments.samples < 2:
        have = "came without its rows" if not trace.parts else "holds one sample"
        raise UserError(f"{trace.path} {have}: a variance between samples needs the rows of at least two")
    return moments.split()
