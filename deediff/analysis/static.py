"""The best static schedule: one exit layer per timestep for all samples, without UEMs.

Fitted on the even samples of a trace, tested on the odd ones, and compared with the recorded adaptive policy. The
price of an exit is one of
  deviation    RMS(g_i − ε_full), if the trace has it; 0 for the full network
  uncertainty  u of the layer, of a full recording; for the full network u of the deepest UEM, so that the last block
               alone lowers no price
  layers       otherwise: the distance from the adaptive exit layer, so that the schedule imitates the policy
All are open loop: other exits than the recorded ones would have changed the trajectories.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.variance import IntervalEstimate
from deediff.errors import UserError
from deediff.json_files import write_json
from deediff.policies.from_trace.budget import budget_threshold
from deediff.policies.from_trace.knapsack import Floats, Layers, static_layers
from deediff.policies.from_trace.oracle_exits import mean_deviation, trained_exits
from deediff.traces.reader import Trace
from deediff.traces.summary import Ints


@dataclass
class HeldOutResult:
    """One policy on the held-out samples."""

    policy: str
    layer_ratio: float
    gflops: float  # mean per image and step, evaluated UEMs included
    agreement: float  # share of (sample, step) with the exit layer of the adaptive policy
    layer_distance: float  # mean distance from that layer
    price: float  # mean over samples and steps; NaN if the price is the distance
    above_adaptive: IntervalEstimate  # difference of the price from the adaptive policy's, paired by sample


@dataclass
class StaticFit:
    """Static schedules fitted on half of a trace, and their results on the other half."""

    price: str  # deviation, uncertainty or layers
    fitted_on: int  # samples
    tested_on: int
    layers: Layers  # (S,) of the schedule to save
    held_out: list[HeldOutResult] = field(default_factory=list)  # adaptive first


@dataclass
class _Block:
    """Samples of one half of one part."""

    exits: NDArray[np.int64]  # (B, S) of the adaptive policy
    price: NDArray[np.float32] | None  # (B, S, N+1)


def fit_static(trace: Trace, budget: float | None = None, imitate: bool = False) -> StaticFit:
    """Fit, and test at the adaptive policy's cost; also at `budget` (mean GFLOPs per step), if given.

    The adaptive policy is the recorded one or, for a full recording and a budget, the threshold that meets the
    budget. With `imitate` the price is `layers` even if the trace has another. Raises UserError when the trace has no
    rows or exits or fewer than two samples, when every schedule exceeds the budget, and when a budget is missing: a
    full recording of a policy without UEMs does not adapt.
    """
    if budget is not None and not math.isfinite(budget):
        raise UserError(f"the budget is {budget}, expected GFLOPs per image and step")
    if trace.cost.fixed_steps:
        raise UserError(f"{trace.path}: its plan or policy fixes the exits of some steps, so there is nothing to fit")
    if not trace.cost.heads:
        raise UserError(f"{trace.path}: its model has no output heads, so there is no early exit")
    full = trace.meta.record == "full" and trace.meta.has_uncertainty and not imitate
    kind = "layers" if not full else "deviation" if trace.meta.has_deviations else "uncertainty"
    policy, with_uem, tau = str(trace.meta.policy), trace.meta.policy_needs_uncertainty, None
    if full and (budget is not None or not with_uem):
        if budget is None:
            raise UserError(f"{trace.path} was recorded under {policy}, which does not adapt: give a budget in GFLOPs")
        found = budget_threshold(budget, trace)
        policy, with_uem, tau = found.spec, True, float(found.threshold)

    fitted, exits, prices = 0, np.zeros((len(trace.timesteps), trace.num_blocks + 1), np.int64), np.zeros(())
    for block in _half(trace, kind, tau, 0):
        fitted += len(block.exits)
        exits += (block.exits[:, :, None] == np.arange(trace.num_blocks + 1)).sum(axis=0)
        if block.price is not None:
            prices = prices + block.price.sum(axis=0, dtype=np.float64)
    if not fitted:
        raise UserError(f"{trace.path} has no rows or only one sample: nothing to fit a schedule to")
    mean_price = exit_distance(exits) if kind == "layers" else prices / fitted
    mean_price[:, ~trained_exits(trace)] = np.inf
    cost = trace.cost.at_exit(with_uem=False)
    adaptive_cost = trace.cost.mean_gflops(exits, with_uem=with_uem)
    spend = kind == "layers"
    schedules = {"static, same cost": static_layers(mean_price, cost, adaptive_cost, spend)}
    if kind == "layers":
        schedules["static, nearest"] = static_layers(mean_price, cost, np.inf, spend=False)
    saved = schedules["static, same cost"]
    if budget is not None:
        saved = schedules[f"static, {budget:g} GFLOPs"] = static_layers(mean_price, cost, budget, spend)
    held_out = _Test(trace, schedules, policy, with_uem)
    for block in _half(trace, kind, tau, 1):
        held_out.add(block)
    if not held_out.tested:
        raise UserError(f"{trace.path} holds one sample: the even ones are for fitting, the odd ones for testing")
    return StaticFit(kind, fitted, held_out.tested, saved, held_out.rows())


def best_exit_layer(trace: Trace, budget: float) -> int:
    """The layer of least mean deviation, over samples and steps, that costs at most `budget` GFLOPs per step.

    Raises UserError when the trace has no deviations, and when every layer costs more.
    """
    price = mean_deviation(trace).mean(axis=0, keepdims=True)  # as a schedule of one step
    return int(static_layers(price, trace.cost.at_exit(with_uem=False), budget, spend=False)[0])


def _half(trace: Trace, kind: str, tau: float | None, odd: int) -> Iterator[_Block]:
    """The samples of odd numbers (1) or even numbers (0), part by part."""
    for part, (numbers, exits) in zip(trace.parts, trace.iter_exit_layers(), strict=True):
        selected = numbers % 2 == odd
        u = None if kind == "layers" else trace.uncertainty(part)[selected]
        chosen: NDArray[np.int64] = exits[selected].astype(np.int64)
        if tau is not None and u is not None:
            certain = u <= np.float32(tau)
            chosen = np.where(certain.any(axis=-1), certain.argmax(axis=-1), trace.num_blocks)
        price = None
        if kind == "deviation":
            price = trace.deviation(part)[selected]
            price = np.concatenate([price, np.zeros_like(price[:, :, :1])], axis=-1)
        elif u is not None:
            deepest = np.flatnonzero(trained_exits(trace)[:-1])[-1:]
            price = np.concatenate([u, u[:, :, deepest]], axis=-1)
        yield _Block(chosen, price)


class _Test:
    """Accumulates the results of each schedule on held-out samples."""

    def __init__(self, trace: Trace, schedules: dict[str, Layers], policy: str, with_uem: bool):
        self.cost, self.num_blocks, self.schedules = trace.cost, trace.num_blocks, schedules
        self.policy, self.with_uem, self.tested = policy, with_uem, 0
        self.exits = np.zeros(trace.num_blocks + 1, np.int64)
        self.agree = dict.fromkeys(schedules, 0.0)  # sums over samples of means over steps
        self.distance = dict.fromkeys(schedules, 0.0)
        self.adaptive_price: list[Floats] = []  # per block, per sample: mean over steps
        self.prices: dict[str, list[Floats]] = {name: [] for name in schedules}

    def add(self, block: _Block) -> None:
        """Add the samples of a block."""
        self.tested += len(block.exits)
        self.exits += np.bincount(block.exits.reshape(-1), minlength=len(self.exits))
        if block.price is not None:
            self.adaptive_price.append(_paid(block.price, block.exits))
        for name, layers in self.schedules.items():
            self.agree[name] += float((block.exits == layers).mean(axis=1).sum())
            self.distance[name] += float(np.abs(block.exits - layers).mean(axis=1).sum())
            if block.price is not None:
                self.prices[name].append(_paid(block.price, np.broadcast_to(layers, block.exits.shape)))

    def rows(self) -> list[HeldOutResult]:
        """The adaptive policy, then the schedules."""
        undefined = IntervalEstimate(np.nan, np.nan, np.nan)
        cost, n = self.cost.at_exit(with_uem=False), self.num_blocks
        ratio, gflops = self.cost.layer_ratio(self.exits), self.cost.mean_gflops(self.exits, with_uem=self.with_uem)
        paid = np.concatenate(self.adaptive_price) if self.adaptive_price else np.full(self.tested, np.nan)
        rows = [HeldOutResult(self.policy, ratio, gflops, 1.0, 0.0, float(paid.mean()), undefined)]
        for name, layers in self.schedules.items():
            static_price = np.concatenate(self.prices[name]) if self.prices[name] else paid
            more = static_price - paid
            # Samples are independent: the normal interval of a mean of paired differences.
            error = 1.96 * float(more.std(ddof=1)) / self.tested**0.5 if self.tested > 1 else np.nan
            above = IntervalEstimate(float(more.mean()), float(more.mean()) - error, float(more.mean()) + error)
            agree, distance = self.agree[name] / self.tested, self.distance[name] / self.tested
            static = float(layers.mean()) / n, float(cost[layers].mean())
            rows.append(HeldOutResult(name, *static, agree, distance, float(static_price.mean()), above))
        return rows


def _paid(price: NDArray[np.float32], exits: NDArray[np.int64]) -> Floats:
    """(B, S, N+1), (B, S) → (B,): mean over steps of the chosen layers' price."""
    return np.take_along_axis(price, exits[:, :, None], axis=2)[:, :, 0].mean(axis=1, dtype=np.float64)


def exit_distance(exits: Ints) -> Floats:
    """Mean distance from the adaptive exit layer, per step and static layer: counts (S, N+1) → (S, N+1).

    The layer of least distance is the median.
    """
    layers = np.arange(exits.shape[1])
    return exits @ np.abs(layers[:, None] - layers) / exits.sum(axis=1, keepdims=True)


def save_schedule(path: Path, trace: Trace, layers: Layers) -> None:
    """Write layers (S,) for `--policy schedule:FILE`; each timestep gets the layer of the nearest recorded timestep.

    Raises UserError when it cannot be written.
    """
    recorded = np.asarray(trace.timesteps)
    total = int(recorded.max()) + 1  # in every spacing the first step is the last timestep of the training
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
