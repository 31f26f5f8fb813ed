"""Baselines of early exit: policies and networks of the same or lower cost.

Parameters are fitted on a full recording of other seeds, of half as many images, or on the held-out images of the
calibration; never on the images that are evaluated.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.analysis.static import best_exit_layer, fit_static, save_schedule
from deediff.checkpoints import load_checkpoint
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel, UViTConfig, make_backbone
from deediff.policies.calibrated import Excess
from deediff.traces.reader import Trace
from trainer.suites.experiments import Experiments

FITTING_SEED = 1  # the evaluated traces have seed 0


class Baselines:
    """Policies and runs that cost no more than `early`, a trace of `run` with early exit."""

    def __init__(self, experiments: Experiments, run: Path, early: Trace):
        self.experiments, self.run, self.early = experiments, run, early
        with_uem = early.meta.policy_needs_uncertainty
        self.budget = early.cost.mean_gflops(early.summary.exits, with_uem)  # per image and step

    @cached_property
    def _recording(self) -> Trace:
        """The full network on other seeds: u and the deviation of every exit."""
        return self.experiments.sample(
            self.run,
            "full recording for fitting",
            "never",
            seed=FITTING_SEED,
            record="full",
            deviations=True,
            num_samples=max(2, self.experiments.scale.num_samples // 2),
        )

    def policy(self, name: str) -> tuple[str, int]:
        """One of BASELINE_KINDS as the text of a policy, and its number of denoising steps."""
        steps, cost = self.experiments.scale.steps, self.early.cost
        match name:
            case "fewer steps":
                return "never", max(1, int(steps * self.budget / cost.full))
            case "smaller":
                return "never", steps
            case "dual":
                shallow = self.shallow()
                cheap = model_cost(load_checkpoint(shallow)[0]).full
                switch = 1000 * (self.budget - cheap) / (cost.full - cheap)  # full network for t below
                return f"dual:{max(0, round(switch))}:{shallow}", steps
            case "fixed":
                return f"fixed:{best_exit_layer(self._recording, self.budget)}", steps
            case "static":
                schedule = self.run / "static-schedule.json"
                save_schedule(schedule, self._recording, fit_static(self._recording, self.budget).layers)
                return f"schedule:{schedule}", steps
            case "oracle":
                label = "full recording with deviations"
                recorded = self.experiments.sample(self.run, label, "never", record="full", deviations=True)
                return f"oracle:{self.budget}@{recorded.path}", steps
            case "budget":
                return f"budget:{self.budget}@{self._recording.path}", steps
            case "stopping":
                self.experiments.calibrate(self.run)
                return f"stopping:{self.budget}", steps
            case "excess":
                self.experiments.calibrate(self.run)
                return f"excess:{self._delta()}", steps
        raise UserError(f"unknown baseline {name!r}")

    def shallow(self) -> Path:
        """DuoDiff's shallow network, trained on as many images as the full one."""
        return self.experiments.train("shallow", self.experiments.plain(self.experiments.scale.shallow))

    def smaller(self) -> Path:
        """The deepest network without exits within the budget, trained on as many images as the full one."""
        config = self.experiments.plain(self.experiments.scale.config)
        model = config.model
        assert isinstance(model, UViTConfig)
        depths = range(2, model.depth + 1, 2)
        models = {depth: replace(model, depth=depth) for depth in depths}
        costs = {depth: model_cost(EarlyExitModel(make_backbone(model))).full for depth, model in models.items()}
        affordable = max((depth for depth in depths if costs[depth] <= self.budget), default=2)
        return self.experiments.train(f"depth-{affordable}", replace(config, model=models[affordable]))

    def _delta(self) -> float:
        """The smallest δ at which `excess:δ` meets the budget on the recording (open loop)."""
        model, info = load_checkpoint(self.run)
        solver = make_solver(self.experiments.scale.solver, Schedule(**info["schedule"]), self.experiments.scale.steps)
        ready = Excess(0.0).prepared(model, solver)
        assert isinstance(ready, Excess)
        assert ready.table is not None
        recorded = np.concatenate([self._recording.uncertainty(part) for part in self._recording.parts])
        return smallest_excess(recorded, ready.table, self.early.cost.at_exit(with_uem=True), self.budget)


def smallest_excess(
    uncertainty: NDArray[np.float32],  # (B, S, N), recorded in full
    deepest: NDArray[np.float32],  # (S, 1) reference of u per step
    prices: NDArray[np.float64],  # (N+1,) GFLOPs of an exit at each layer
    budget: float,
) -> float:
    """The smallest of δ = −0.99, −0.98, … at which u ≤ (1+δ) × deepest costs no more than the budget, on average.

    Raises UserError when none up to 10 does.
    """
    excess = np.fmin.accumulate(uncertainty / deepest - 1, axis=-1)  # exit at or before layer i if ≤ δ
    for delta in np.arange(-99, 1001) / 100:
        exited = excess <= delta
        exits = np.where(exited.any(axis=-1), exited.argmax(axis=-1), exited.shape[-1])
        if prices[exits].mean() <= budget:
            return float(delta)
    raise UserError(f"no δ up to 10 costs {budget:g} GFLOPs or less: the earliest exits cost more")
