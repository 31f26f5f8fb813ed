"""Exit layers per step that minimise a price under a budget of GFLOPs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError

Layers = NDArray[np.int64]  # (S,)
Floats = NDArray[np.float64]


def static_layers(price: Floats, cost: Floats, budget: float, spend: bool) -> Layers:
    """The layer per step that minimises the mean price under a budget: (S, N+1), (N+1,) → (S,).

    Greedy moves along each step's lower convex hull of (cost, price), the steepest move of all steps first:
    the Lagrangian solution of the multiple-choice knapsack (Sinha & Zoltners 1979), up to one step.
    With `spend`, moves that do not lower the price are made as well, so that the budget is spent up to one block of
    one step. A layer with a price that is not finite is excluded. Raises UserError when the cheapest layer costs more.
    """
    order = np.argsort(cost, kind="stable")
    order = order[np.isfinite(price[:, order]).all(axis=0)]
    cost, price = cost[order], price[:, order]
    left = (budget - cost[0]) * len(price)
    if left < -1e-9 * abs(budget):
        raise UserError(f"no static schedule costs {budget:g} GFLOPs or less per step: the cheapest is {cost[0]:.4g}")
    moves: list[tuple[float, int, int]] = []  # price per GFLOP, step, layer to go to
    for step, prices in enumerate(price):
        at, slope = 0, -np.inf
        while at < len(cost) - 1:
            slopes = (prices[at + 1 :] - prices[at]) / np.maximum(cost[at + 1 :] - cost[at], 1e-300)
            slope = max(slope, float(slopes.min()))  # rounding must not reverse two moves of one step
            at += 1 + int(slopes.argmin())
            moves.append((slope, step, at))
    chosen = np.zeros(len(price), np.int64)
    for slope, step, to in sorted(moves):
        if slope >= 0 and not spend:
            break
        afforded = cost <= cost[chosen[step]] + left + 1e-9 * abs(budget)
        if not afforded[to]:  # the last move: to the best layer within the budget
            chosen[step] = np.where(afforded, cost if spend else -price[step], -np.inf).argmax()
            break
        left -= cost[to] - cost[chosen[step]]
        chosen[step] = to
    return order[chosen]
