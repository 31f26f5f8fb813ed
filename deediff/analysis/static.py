"""The best static schedule: one exit layer per timestep for all samples, and no UEM to ask.

Fitted on the even samples of a trace, tested on the odd ones, beside the adaptive policy that was
recorded. An exit's price is one of
  deviation    RMS(g_i − ε_full), where the trace recorded it; the full network costs nothing
  uncertainty  u of the layer, recorded in full; the full network's is that of the deepest UEM, so
               that the last block gains nothing by itself
  layers       without either: the distance from the adaptive exit layer, so that the schedule imitates
All are open loop: exits other than the recorded ones would have led the samples elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.variance import Estimate, Floats
from deediff.errors import UserError
from deediff.json_files import write_json
from deediff.policies.from_trace.budget import budget_threshold
from deediff.policies.from_trace.oracle_exits import trained_exits
from deediff.traces.reader import Trace
from deediff.traces.summary import Ints

Layers = NDArray[np.int64]  # (S,)


def cheapest(price: Floats, cost: Floats, budget: float, spend: bool) -> Layers:
    """The layer per step that minimises the mean price under a budget: (S, N+1), (N+1,) → (S,).

    Moves along each step's lower convex hull of (cost, price), the best move of all steps first:
    the Lagrangian solution of the multiple-choice knapsack (Sinha & Zoltners 1979), but for one step.
    `spend`: go on where a move only costs, so that the budget is spent up to one block of one step.
    A price that is not finite rules its layer out. Raises UserError when even the cheapest layer costs more.
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
            slope = max(slope, float(slopes.min()))  # rounding must not turn two moves of one step around
            at += 1 + int(slopes.argmin())
            moves.append((slope, step, at))
    chosen = np.zeros(len(price), np.int64)
    for slope, step, to in sorted(moves):
        if slope >= 0 and not spend:
            break
        afforded = cost <= cost[chosen[step]] + left + 1e-9 * abs(budget)
        if not afforded[to]:  # the last move: as far as the budget goes
            chosen[step] = np.where(afforded, cost if spend else -price[step], -np.inf).argmax()
            break
        left -= cost[to] - cost[chosen[step]]
        chosen[step] = to
    return order[chosen]


def exit_distance(exits: Ints) -> Floats:
    """Mean distance from the adaptive exit layer, per step and static layer: counts (S, N+1) → (S, N+1).

    The layer nearest to all is their median.
    """
    layers = np.arange(exits.shape[1])
    return exits @ np.abs(layers[:, None] - layers) / exits.sum(axis=1, keepdims=True)


@dataclass
class Held:
    """One policy on the held-out samples."""

    policy: str
    layer_ratio: float
    gflops: float  # mean per image and step, what the policy evaluates included
    agreement: float  # share of (sample, step) with the adaptive policy's exit layer
    layer_distance: float  # mean distance from it
    price: float  # mean over samples and steps; NaN where the price is the distance itself
    above_adaptive: Estimate  # its difference from the adaptive policy's, paired by sample


@dataclass
class StaticFit:
    """Static schedules fitted on half of a trace, and how they did on the other half."""

    price: str  # deviation, uncertainty or layers
    fitted_on: int  # samples
    tested_on: int
    layers: Layers  # (S,) of the schedule to save
    held_out: list[Held] = field(default_factory=list)  # adaptive first


@dataclass
class _Block:
    """Samples of one half of one part."""

    exits: NDArray[np.int64]  # (B, S) of the adaptive policy
    price: NDArray[np.float32] | None  # (B, S, N+1)


def fit_static(trace: Trace, budget: float | None = None, imitate: bool = False) -> StaticFit:
    """Fit, and test at the adaptive policy's cost; also at `budget` (mean GFLOPs per step), if given.

    The adaptive policy is the recorded one; where u was recorded in full and a budget is given, the
    threshold that it buys. `imitate`: the price is layers, even if the trace knows better. Raises
    UserError when the trace has no rows or exits, or fewer than two samples, when the budget buys
    nothing, or is needed: a full recording of a policy that asks no UEM does not adapt.
    """
    if budget is not None and not math.isfinite(budget):
        raise UserError(f"the budget is {budget}, expected GFLOPs per image and step")
    if trace.cost.shallow_steps:
        raise UserError(f"{trace.path}: another network takes its first steps, so exit layers do not tell their cost")
    if not trace.cost.heads:
        raise UserError(f"{trace.path}: its model has no output heads, so nothing can leave early")
    full = trace.meta["record"] == "full" and bool(trace.meta["has_uncertainty"]) and not imitate
    kind = "layers" if not full else "deviation" if trace.meta.get("deviations") else "uncertainty"
    policy, asks, tau = str(trace.meta["policy"]), bool(trace.meta["policy_needs_uncertainty"]), None
    if full and (budget is not None or not asks):
        if budget is None:
            raise UserError(f"{trace.path} was recorded under {policy}, which does not adapt: give a budget in GFLOPs")
        found = budget_threshold(budget, trace)
        policy, asks, tau = found.spec, True, float(found.threshold)

    fitted, exits, prices = 0, np.zeros((len(trace.timesteps), trace.num_blocks + 1), np.int64), np.zeros(())
    for block in _half(trace, kind, tau, 0):
        fitted += len(block.exits)
        exits += (block.exits[:, :, None] == np.arange(trace.num_blocks + 1)).sum(axis=0)
        if block.price is not None:
            prices = prices + block.price.sum(axis=0, dtype=np.float64)
    if not fitted:
        raise UserError(f"{trace.path} came without its rows, or with one sample: nothing to fit a schedule to")
    mean_price = exit_distance(exits) if kind == "layers" else prices / fitted
    mean_price[:, ~trained_exits(trace)] = np.inf
    cost = trace.cost.at_exit(with_uem=False)
    adaptive_cost = trace.cost.mean_gflops(exits, with_uem=asks)
    schedules = {"static, same cost": cheapest(mean_price, cost, adaptive_cost, spend=kind == "layers")}
    if kind == "layers":
        schedules["static, nearest"] = cheapest(mean_price, cost, np.inf, spend=False)
    saved = schedules["static, same cost"]
    if budget is not None:
        saved = schedules[f"static, {budget:g} GFLOPs"] = cheapest(mean_price, cost, budget, spend=kind == "layers")
    held_out = _Test(trace, schedules, policy, asks)
    for block in _half(trace, kind, tau, 1):
        held_out.add(block)
    if not held_out.tested:
        raise UserError(f"{trace.path} holds one sample: the even ones are for fitting, the odd ones for testing")
    return StaticFit(kind, fitted, held_out.tested, saved, held_out.rows())


def _half(trace: Trace, kind: str, tau: float | None, odd: int) -> Iterator[_Block]:
    """Part by part, the samples with an odd number (1) or an even one (0)."""
    for part, (numbers, exits) in zip(trace.parts, trace.iter_exit_layers(), strict=True):
        mine = numbers % 2 == odd
        u = None if kind == "layers" else trace.uncertainty(part)[mine]
        chosen: NDArray[np.int64] = exits[mine].astype(np.int64)
        if tau is not None and u is not None:
            leaves = u <= np.float32(tau)
            chosen = np.where(leaves.any(axis=-1), leaves.argmax(axis=-1), trace.num_blocks)
        price = None
        if kind == "deviation":
            price = trace.deviation(part)[mine]
            price = np.concatenate([price, np.zeros_like(price[:, :, :1])], axis=-1)
        elif u is not None:
            deepest = np.flatnonzero(trained_exits(trace)[:-1])[-1:]
            price = np.concatenate([u, u[:, :, deepest]], axis=-1)
        yield _Block(chosen, price)


class _Test:
    """Adds up what each schedule does on held-out samples."""

    def __init__(self, trace: Trace, schedules: dict[str, Layers], policy: str, asks: bool):
        self.cost, self.num_blocks, self.schedules = trace.cost, trace.num_blocks, schedules
        self.policy, self.asks, self.tested = policy, asks, 0
        self.exits = np.zeros(trace.num_blocks + 1, np.int64)
        self.agree = dict.fromkeys(schedules, 0.0)  # sums over samples of means over steps
        self.distance = dict.fromkeys(schedules, 0.0)
        self.adaptive_price: list[Floats] = []  # per block, per sample: mean over steps
        self.prices: dict[str, list[Floats]] = {name: [] for name in schedules}

    def add(self, block: _Block) -> None:
        """Count a block in."""
        self.tested += len(block.exits)
        self.exits += np.bincount(block.exits.reshape(-1), minlength=len(self.exits))
        if block.price is not None:
            self.adaptive_price.append(_paid(block.price, block.exits))
        for name, layers in self.schedules.items():
            self.agree[name] += float((block.exits == layers).mean(axis=1).sum())
            self.distance[name] += float(np.abs(block.exits - layers).mean(axis=1).sum())
            if block.price is not None:
                self.prices[name].append(_paid(block.price, np.broadcast_to(layers, block.exits.shape)))

    def rows(self) -> list[Held]:
        """The adaptive policy, then the schedules."""
        nothing = Estimate(np.nan, np.nan, np.nan)
        cost, n = self.cost.at_exit(with_uem=False), self.num_blocks
        ratio, gflops = self.cost.layer_ratio(self.exits), self.cost.mean_gflops(self.exits, with_uem=self.asks)
        paid = np.concatenate(self.adaptive_price) if self.adaptive_price else np.full(self.tested, np.nan)
        rows = [Held(self.policy, ratio, gflops, 1.0, 0.0, float(paid.mean()), nothing)]
        for name, layers in self.schedules.items():
            mine = np.concatenate(self.prices[name]) if self.prices[name] else paid
            more = mine - paid
            # Samples are independent, so the normal interval of a mean of paired differences will do.
            error = 1.96 * float(more.std(ddof=1)) / self.tested**0.5 if self.tested > 1 else np.nan
            above = Estimate(float(more.mean()), float(more.mean()) - error, float(more.mean()) + error)
            agree, distance = self.agree[name] / self.tested, self.distance[name] / self.tested
            static = float(layers.mean()) / n, float(cost[layers].mean())
            rows.append(Held(name, *static, agree, distance, float(mine.mean()), above))
        return rows


def _paid(price: NDArray[np.float32], exits: NDArray[np.int64]) -> Floats:
    """(B, S, N+1), (B, S) → (B,): mean over steps of the chosen layers' price."""
    return np.take_along_axis(price, exits[:, :, None], axis=2)[:, :, 0].mean(axis=1, dtype=np.float64)


def save_schedule(path: Path, trace: Trace, layers: Layers) -> None:
    """Write layers (S,) for `--policy schedule:FILE`: every timestep takes that of the nearest recorded one.

    Raises UserError when it cannot be written.
    """
    recorded = np.asarray(trace.timesteps)
    total = int(recorded.max()) + 1  # the first step is the training's last timestep, however they are spaced
    nearest = np.abs(np.arange(total)[:, None] - recorded).argmin(axis=1)
    content = {
        "num_timesteps": total,
        "num_blocks": trace.num_blocks,
        "exit_layer": layers[nearest].tolist(),
        "fitted_on": trace.path.name,
        "gflops": float(trace.cost.at_exit(with_uem=False)[layers].mean()),
    }
    try:
        write_json(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another --out") from None
