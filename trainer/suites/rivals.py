"""What else the GFLOPs of an early exit could buy: policies and networks of the same cost.

Whatever has to be fitted is fitted on half as many images of other seeds, recorded in full, or on the
calibration's held-out images; never on what it is judged by.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.static import fit_static, save_schedule
from deediff.checkpoints import load_checkpoint
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViTConfig, make_backbone
from deediff.policies.calibrated import Excess
from deediff.traces.reader import Trace
from trainer.suites.on_demand import OnDemand

FITTING_SEED = 1  # the traces that are compared have seed 0


class Rivals:
    """The policies and runs that spend no more than `early`, a trace of the exits of `run`, did."""

    def __init__(self, work: OnDemand, run: Path, early: Trace):
        self.work, self.run, self.early = work, run, early
        asked = early.meta.policy_needs_uncertainty
        self.budget = early.cost.mean_gflops(early.summary.exits, asked)  # per image and step, UEMs included

    @cached_property
    def _recording(self) -> Trace:
        """The full network on other seeds: u and the true price of every exit."""
        return self.work.sample(
            self.run, "full recording for fitting", "never", seed=FITTING_SEED, record="full", deviations=True,
            num_samples=max(2, self.work.scale.num_samples // 2),
        )  # fmt: skip

    def policy(self, name: str) -> tuple[str, int]:
        """One of RIVALS as a policy for the command line, and its number of denoising steps."""
        steps, cost = self.work.scale.steps, self.early.cost
        match name:
            case "fewer steps":
                return "never", max(1, int(steps * self.budget / cost.full))
            case "smaller":
                return "never", steps
            case "dual":
                shallow = self.shallow()
                cheap = model_cost(load_checkpoint(shallow)[0]).full
                switch = 1000 * (self.budget - cheap) / (cost.full - cheap)  # the full network takes those below
                return f"dual:{max(0, round(switch))}:{shallow}", steps
            case "fixed":
                affordable = [i for i, gflops in enumerate(cost.at_exit(with_uem=False)) if gflops <= self.budget]
                return f"fixed:{max(affordable, default=0)}", steps
            case "static":
                schedule = self.run / "static-schedule.json"
                save_schedule(schedule, self._recording, fit_static(self._recording, self.budget).layers)
                return f"schedule:{schedule}", steps
            case "oracle":
                known = self.work.sample(
                    self.run, "full recording with deviations", "never", record="full", deviations=True
                )
                return f"oracle:{self.budget}@{known.path}", steps
            case "budget":
                return f"budget:{self.budget}@{self._recording.path}", steps
            case "stopping":
                self.work.calibrate(self.run)
                return f"stopping:{self.budget}", steps
            case "excess":
                self.work.calibrate(self.run)
                return f"excess:{self._delta()}", steps
        raise UserError(f"unknown rival {name!r}")

    def shallow(self) -> Path:
        """DuoDiff's shallow network, trained as long as the full one."""
        return self.work.train("shallow", self.work.plain(self.work.scale.shallow))

    def smaller(self) -> Path:
        """The deepest plain network that costs no more, trained as long as the full one."""
        config = self.work.plain(self.work.scale.config)
        model = config.model
        assert isinstance(model, UViTConfig)
        depths = range(2, model.depth + 1, 2)
        models = {depth: replace(model, depth=depth) for depth in depths}
        costs = {depth: model_cost(EarlyExitModel(make_backbone(model))).full for depth, model in models.items()}
        affordable = max((depth for depth in depths if costs[depth] <= self.budget), default=2)
        return self.work.train(f"depth-{affordable}", replace(config, model=models[affordable]))

    def _delta(self) -> float:
        """The smallest δ at which `excess:δ` would have kept the budget on the recording (open loop)."""
        model, info = load_checkpoint(self.run)
        solver = make_solver(self.work.scale.solver, Schedule(**info["schedule"]), self.work.scale.steps)
        ready = Excess(0.0).prepared(model, solver)
        assert isinstance(ready, Excess)
        assert ready.table is not None
        recorded = np.concatenate([self._recording.uncertainty(part) for part in self._recording.parts])
        return smallest_excess(recorded, ready.table, self.early.cost.at_exit(with_uem=True), self.budget)


def smallest_excess(
    uncertainty: NDArray[np.float32],  # (B, S, N), recorded in full
    deepest: NDArray[np.float32],  # (S, 1) what u is compared with
    prices: NDArray[np.float64],  # (N+1,) GFLOPs of leaving at each layer
    budget: float,
) -> float:
    """The smallest of δ = −0.99, −0.98, … at which u ≤ (1+δ) × deepest costs no more than the budget, on average.

    Raises UserError when none up to 10 does.
    """
    excess = np.fmin.accumulate(uncertainty / deepest - 1, axis=-1)  # leaves by layer i when this is ≤ δ
    for delta in np.arange(-99, 1001) / 100:
        left = excess <= delta
        exits = np.where(left.any(axis=-1), left.argmax(axis=-1), left.shape[-1])
        if prices[exits].mean() <= budget:
            return float(delta)
    raise UserError(f"no δ up to 10 costs {budget:g} GFLOPs or less: the exits before it are dearer than that")
