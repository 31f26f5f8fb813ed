"""The exits of least deviation within a budget, from the deviations that a full trace records.

The oracle minimises the sum over samples and steps of RMS(g_i − ε_full). At a price λ per GFLOP, each sample and step
exits at the layer of least deviation + λ × GFLOPs; λ is the lowest price whose exits meet the budget. The oracle
evaluates no UEM, so its cost is that of the blocks and one output head. The policy `oracle:GFLOPs@TRACE` samples with
these exits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.policies.from_trace.knapsack import Floats, Layers, static_layers
from deediff.traces.reader import Trace

PRECISION = 1e-9  # relative, of λ and of the budget


def oracle_exits(
    trace: Trace,  # recorded with --record full --deviations
    gflops: float,  # mean per image and step
) -> NDArray[np.int8]:
    """(samples, S) exit layers; reads part by part.

    The total deviation is at most that of the static schedule that `static_layers` fits to the same trace, and exceeds
    the least that the budget allows by less than one sample gains at one step. Raises UserError when the cheapest exit
    at every step costs more.
    """
    layers = np.flatnonzero(trained_exits(trace))
    cost = trace.cost.at_exit(with_uem=False)[layers]
    if (least := float(cost.min())) > gflops * (1 + PRECISION):
        raise UserError(f"no exits cost {gflops:g} GFLOPs or less on {trace.path}: the cheapest cost {least:.4g}")
    budget = gflops * (1 + PRECISION) * int(trace.summary.samples) * len(trace.timesteps)

    def spent(price: float) -> float:
        return sum(float(cost[_exits_at(price, part, cost)].sum()) for part in _deviations(trace, layers))

    lower, price = _least_price(spent, budget)
    schedule = static_layers(mean_deviation(trace)[:, layers], cost, gflops, spend=False)
    left, found, more = budget - spent(price), [], 0.0
    for part in _deviations(trace, layers):
        exits, deeper = _exits_at(price, part, cost), _exits_at(lower, part, cost)
        extra = cost[deeper] - cost[exits]
        affordable = extra.cumsum().reshape(extra.shape) <= left  # of equally good exits, as many as the budget allows
        left -= float(extra[affordable].sum())
        exits = np.where(affordable, deeper, exits)
        more += _total(part, exits) - _total(part, np.broadcast_to(schedule, exits.shape))
        found.append(layers[exits].astype(np.int8))
    if more > 0:  # with few samples, the rest of the budget that is too small for a further exit counts
        return np.broadcast_to(layers[schedule].astype(np.int8), (int(trace.summary.samples), len(schedule)))
    return np.concatenate(found)


def _least_price(spent: Callable[[float], float], budget: float) -> tuple[float, float]:
    """The lowest λ that meets the budget, and before it one that does not, or 0: equal up to PRECISION."""
    if spent(0.0) <= budget:
        return 0.0, 0.0
    low, high = 0.0, 1.0
    while spent(high) > budget:
        low, high = high, 4 * high
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > budget else (low, middle)
    return low, high


def _exits_at(price: float, deviation: Floats, cost: Floats) -> Layers:
    """The index of least deviation + price × cost, the first among equals: (B, S, L), (L,) → (B, S)."""
    return (deviation + price * cost).argmin(axis=-1)


def _total(deviation: Floats, exits: Layers) -> float:
    return float(np.take_along_axis(deviation, exits[..., None], axis=-1).sum())


def trained_exits(trace: Trace) -> NDArray[np.bool_]:
    """(N+1,) bool: the layers with a trained exit, by their recorded u, and N; all layers if no u was recorded."""
    evaluated = trace.summary.u_count.any(axis=0)
    return np.append(evaluated | (not evaluated.any()), True)


def _deviations(trace: Trace, layers: Layers) -> Iterator[Floats]:
    """(B, S, L) of each part at the layers (L,); 0 at N, the full network."""
    for part in trace.parts:
        recorded = trace.deviation(part)
        deviation = np.concatenate([recorded, np.zeros_like(recorded[..., :1])], axis=-1, dtype=np.float64)
        yield np.nan_to_num(deviation[..., layers], nan=np.finfo(np.float64).max)


def mean_deviation(trace: Trace) -> Floats:
    """(S, N+1) mean over samples; 0 for the full network, ∞ at layers without an exit.

    Raises UserError when the trace holds no deviations.
    """
    if not trace.meta.has_deviations:
        raise UserError(f"{trace.path} holds no deviations: sample it with --record full --deviations")
    mean = np.pad(trace.summary.deviation_sum / trace.summary.deviation_count, ((0, 0), (0, 1)))
    return np.where(trained_exits(trace), mean, np.inf)
