"""The plan that `deediff bench sampler` times: the one that the run recommends, or an imitation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from deediff.calibration.gaussian import ImageGaussian
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver, make_solver
from deediff.models import EarlyExitModel
from deediff.plans.file import find_plan
from deediff.plans.front import read_front
from deediff.policies import Never
from deediff.policies.fixed import Fixed
from deediff.readouts.gaussian import GaussianReadout
from deediff.readouts.output import Output
from deediff.sampling.planned import PlannedStep, plan_steps, run_folder

STEPS = 8  # of the imitation


class BenchPlan(NamedTuple):
    """A plan without decisions of a policy."""

    name: str
    solver: Solver
    steps: Sequence[PlannedStep]

    def gflops(self, model: EarlyExitModel) -> float:
        """Of one image, mean over the steps."""
        return sum(step.gflops(model, 1) or 0.0 for step in self.steps) / len(self.steps)


def bench_plan(model: EarlyExitModel, schedule: Schedule) -> BenchPlan:
    """The headline of the run's front.json; without one, an imitation.

    The imitation takes 8 steps of DPM-Solver++: three with a Gaussian, one that exits after a quarter of the blocks,
    three with all blocks, and one that reuses ε.
    """
    run = run_folder(model)
    front = None if run is None else read_front(run)
    if front is not None and front.headline is not None:
        plan = find_plan(front.headline[0]["plan"], run)
        solver = make_solver(plan.solver, schedule, plan.timesteps, eta=plan.eta)
        return BenchPlan(plan.name, solver, plan_steps(plan, plan.timesteps, model, schedule, Never(), False))
    gaussian, early = PlannedStep(Never(), False, readout=_gaussian(model)), Fixed(max(1, model.num_blocks // 4))
    reused = PlannedStep(Never(), False, readout=Output(0))
    steps = [gaussian] * 3 + [PlannedStep(early, False)] + [PlannedStep(Never(), False)] * 3 + [reused]
    return BenchPlan(f"of {STEPS} steps", make_solver("dpm-solver++", schedule, STEPS), steps)


def _gaussian(model: EarlyExitModel) -> GaussianReadout:
    """A standard Gaussian, which costs what a fitted one does."""
    flat = math.prod(model.image_shape)
    axes = torch.eye(flat)[: min(256, flat - 1)]
    readout, device = GaussianReadout(), next(model.parameters()).device
    readout.gaussian = ImageGaussian(torch.zeros(model.image_shape), axes, torch.ones(len(axes)), 0.1).to(device)
    readout.gflops = readout.gaussian.gflops
    return readout
