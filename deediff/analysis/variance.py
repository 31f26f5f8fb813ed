"""Variance of exit layers, and of u, split into timestep, sample and rest.

A trace has one value per sample and timestep: a two-way layout without replication,
x = overall mean + timestep + sample + rest. The rest is interaction (of sample and timestep) *and* noise, which
an analysis of variance cannot separate. The correlation of neighbouring steps within a timestep says more:
independent noise has none.
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
class IntervalEstimate:
    """A number and its 95% interval; NaN if undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class VarianceSplit:
    """The split of values (samples, steps): timestep + sample + rest = 1. Unbiased, so a share can be below 0.

    Neighbours are one step of the trace apart: one timestep in DDPM-1000, twenty in DDIM-50. A deviation of a
    sample that lasts for some timesteps appears in `stays_next`, hardly in `sample` or `stays_all`.
    """

    samples: int
    steps: int
    total: IntervalEstimate  # variance over samples and steps
    timestep: IntervalEstimate  # Var(E[x | t]), share of the total
    sample: IntervalEstimate  # variance of the sample's main effect, share of the total
    rest: IntervalEstimate  # interaction and noise, share of the total
    stays_all: IntervalEstimate  # share of the sample's main effect within a timestep
    stays_next: IntervalEstimate  # correlation of neighbouring steps within a timestep, main effect included


class MomentSums:
    """Accumulates sums over blocks of whole samples, for the original samples and for each resampling.

    The resampling is the Poisson bootstrap (Hanley & MacGibbon 2006): each sample is drawn Poisson(1) times,
    which for many samples equals drawing with replacement and needs sums only. The timesteps' means are those of
    the resampling. Memory: (draws + 1) × steps × layers floats, for any number of samples; the result does not
    depend on the block boundaries.
    """

    def __init__(self, steps: int, layers: int = 1, draws: int = 1000, seed: int = 0):
        self.samples, self.draws, self._rng = 0, draws, np.random.default_rng(seed)
        rows = draws + 1  # the first row is the original samples
        self._weight, self._weight_square = np.zeros(rows), np.zeros(rows)
        self._by_step = np.zeros((rows, steps, layers))
        # Over samples: sums over steps of squares, of neighbours' products; squares at both ends; the sum's square.
        self._sums = np.zeros((rows, 4, layers))

    def add(self, values: ArrayLike) -> MomentSums:
        """Add samples (B, steps, layers). Returns self."""
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

    @np.errstate(divide="ignore", invalid="ignore")  # a division by zero gives NaN
    def split(self) -> list[VarianceSplit]:
        """One split per layer. Raises UserError for fewer than two samples."""
        if self.samples < 2:
            raise UserError("a variance between samples needs at least two of them")
        steps = self._by_step.shape[1]
        weight = self._weight[:, None]
        # 1/n for the original samples. A resampling repeats some, which adds noise; the same formulas remove it, so
        # that the resamplings scatter around the estimate without a shift.
        noise = self._weight_square[:, None] / weight**2
        mean = self._by_step / weight[:, None]  # (draws + 1, steps, layers)
        mean_squares = np.einsum("rsl,rsl->rl", mean, mean)
        squares, products, ends, sum_squares = (self._sums[:, i] / weight for i in range(4))
        # Expected mean squares of the two-way layout (Scheffé 1959, ch. 4), in terms of covariances.
        within = (squares - mean_squares) / steps / (1 - noise)
        of_mean = (sum_squares - np.square(mean.sum(axis=1))) / steps**2 / (1 - noise)  # variance of a sample's mean
        sample = (steps * of_mean - within) / (steps - 1)  # = mean covariance of two different timesteps
        timestep = mean_squares / steps - np.square(mean.mean(axis=1)) - noise * (within - of_mean)
        end_variance = (ends - np.square(mean[:, 0]) - np.square(mean[:, -1])) / (1 - noise)
        next_covariance = (products - np.einsum("rsl,rsl->rl", mean[:, 1:], mean[:, :-1])) / (1 - noise)
        next_variance = steps * within - end_variance / 2  # of both neighbours, halved
        # Differences of squares below this are rounding errors of values that do not vary.
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


def estimate(values: Floats) -> IntervalEstimate:
    """From [value, value of resampling 1, …]: the value, and percentiles of the finite resamplings."""
    draws = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return IntervalEstimate(np.nan, np.nan, np.nan)
    low, high = np.percentile(draws, [2.5, 97.5]) if len(draws) else (np.nan, np.nan)
    return IntervalEstimate(float(values[0]), float(low), float(high))


def decompose(values: ArrayLike, draws: int = 1000, seed: int = 0) -> VarianceSplit:
    """The split of values (samples, steps) in memory. Raises UserError for fewer than two samples."""
    x = np.asarray(values)[:, :, None]
    return MomentSums(x.shape[1], draws=draws, seed=seed).add(x).split()[0]


def exit_variance(trace: Trace, draws: int = 1000, seed: int = 0) -> VarianceSplit:
    """The split of a trace's exit layers, read part by part. Raises UserError without rows or with one sample."""
    blocks = (layers[:, :, None] for _, layers in trace.iter_exit_layers())
    return _over_parts(trace, blocks, 1, draws, seed)[0]


def uncertainty_variance(trace: Trace, draws: int = 1000, seed: int = 0) -> list[VarianceSplit]:
    """The split of a trace's u for each of N layers, read part by part; NaN at layers without u of some sample.

    Raises UserError when the trace has no u, no rows, or fewer than two samples.
    """
    return _over_parts(trace, map(trace.uncertainty, trace.parts), trace.num_blocks, draws, seed)


def _over_parts(
    trace: Trace, blocks: Iterable[NDArray[np.generic]], layers: int, draws: int, seed: int
) -> list[VarianceSplit]:
    moments = MomentSums(len(trace.timesteps), layers, draws, seed)
    for block in blocks:
        moments.add(block)
    if moments.samples < 2:
        have = "has no rows" if not trace.parts else "holds one sample"
        raise UserError(f"{trace.path} {have}: a variance between samples needs the rows of at least two")
    return moments.split()
