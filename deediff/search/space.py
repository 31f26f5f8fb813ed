"""The plans that a search draws from, and their parameters: for Optuna, a plan is a list of gaps and a list of choices.

A plan of S steps starts at timestep T−1. Its S timesteps split T−1 … 0 into S gaps, stored as shares of the largest
one: any values in [0, 1] are a valid plan, and equal values are uniform timesteps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from deediff.calibration.gaussian import gaussian_file
from deediff.checkpoints import load_checkpoint
from deediff.cost.components import model_cost
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from deediff.plans.plan import step_name
from deediff.policies.dual import check_network
from deediff.runs import list_runs

Choices = Literal["full", "ends", "all"]
FULL = PlanStep(0)
REUSED = {"output:0": 1, "output:1": 2}  # readout: earlier predictions that it needs
REMEMBERED = {"memory:0": 1, "memory:1": 2, "deep:3": 1}  # readout: full evaluations that it needs


@dataclass(frozen=True)
class Space:
    """All plans of some steps. `options` are what a step may do, as steps at timestep 0; the first is the network."""

    num_blocks: int
    num_timesteps: int
    options: Sequence[PlanStep]
    choices: Choices = "all"  # ends: only the first step may be `input`, and only the last `output:0`
    least_steps: int = 2
    most_steps: int = 14

    @property
    def names(self) -> list[str]:
        """The options by name."""
        return [step_name(option) for option in self.options]

    def allowed(self, step: int, steps: int) -> list[str]:
        """What step `step` of `steps` may do."""
        if self.choices == "ends":
            first, last = step == 0, step == steps - 1
            return ["full"] + ["input"] * first + ["output:0"] * (last and not first)
        return [name for name in self.names if (REUSED | REMEMBERED).get(name, 0) <= step]

    def plan(self, timesteps: Sequence[int], names: Sequence[str]) -> Plan:
        """A plan of these options. `output` and `memory` with too little to reuse become a lower order, or full."""
        by_name, predictions, evaluations = dict(zip(self.names, self.options, strict=True)), 0, 0
        steps = list[PlanStep]()
        for timestep, name in zip(timesteps, names, strict=True):
            if name in REUSED:
                name = f"output:{min(REUSED[name], predictions) - 1}" if predictions else "full"
            if name in REMEMBERED and REMEMBERED[name] > evaluations:
                name = "memory:0" if name == "memory:1" and evaluations else "full"
            predictions += name not in REUSED and name not in REMEMBERED
            another = by_name[name].network is not None  # its step drops the memory
            evaluations = 0 if another else evaluations + (name == "full")
            steps.append(replace(by_name[name], timestep=timestep))
        return Plan(tuple(steps), self.num_blocks, self.num_timesteps, clip_x0=True)

    def holds(self, plan: Plan) -> bool:
        """Whether a plan is one of this space."""
        names = [step_name(step) for step in plan.steps]
        same = (self.num_blocks, self.num_timesteps) == (plan.num_blocks, plan.num_timesteps)
        if not same or not self.least_steps <= len(names) <= self.most_steps or not set(names) <= set(self.names):
            return False
        allowed = all(name in self.allowed(s, len(names)) for s, name in enumerate(names))
        return allowed and self.plan(plan.timesteps, names) == plan

    def to_parameters(self, plan: Plan) -> dict[str, Any]:
        """The parameters of a plan of this space."""
        ends = [*plan.timesteps, 0]
        gaps = [a - b for a, b in pairwise(ends)]
        largest = max(gaps)
        parameters: dict[str, Any] = {"steps": len(plan.steps)}
        for s, (step, gap) in enumerate(zip(plan.steps, gaps, strict=True)):
            parameters |= {f"gap{s}": gap / largest, f"step{s}": step_name(step)}
        return parameters

    def from_parameters(self, parameters: Mapping[str, Any]) -> Plan:
        """The plan of some parameters; `to_parameters` reversed."""
        steps, last = int(parameters["steps"]), self.num_timesteps - 1
        gaps = [parameters[f"gap{s}"] for s in range(steps)]
        starts, total = list(accumulate(gaps[:-1], initial=0.0)), sum(gaps) or 1.0
        timesteps = distinct([round(last * (1 - start / total)) for start in starts])
        return self.plan(timesteps, [parameters.get(f"step{s}", "full") for s in range(steps)])


def distinct(timesteps: Sequence[int]) -> list[int]:
    """Timesteps in descending order, those that are equal moved apart downwards; near 0, upwards."""
    found = list[int]()
    for t in timesteps:
        found.append(t if not found or t < found[-1] else found[-1] - 1)
    for s in range(len(found) - 1, -1, -1):
        found[s] = max(found[s], len(found) - 1 - s)
    return found


def make_space(choices: Choices, model: EarlyExitModel, schedule: Schedule, run: Path) -> Space:
    """The plans of a run, with what it has: exits, statistics of a Gaussian, smaller networks beside it."""
    options = [FULL]
    if choices == "ends":
        options += [PlanStep(0, 0, "input"), PlanStep(0, 0, "output:0")]
    elif choices == "all":
        readouts = ["input", *REUSED]
        if model.origin is not None and gaussian_file(model.origin[0]).exists():
            readouts += ["gaussian", "teleport"]
        options += [PlanStep(0, 0, readout) for readout in readouts]
        options += [PlanStep(0, 0, "memory:0"), PlanStep(0, 0, "memory:1")]
        if all(model.backbone.skip_source(i) is not None for i in range(model.num_blocks - 3, model.num_blocks)):
            options += [PlanStep(0, 3, "deep:3")]
        options += [PlanStep(0, layer) for layer in range(1, model.num_blocks) if model.has_exit(layer)]
        options += [PlanStep(0, network=name) for name in smaller_networks(model, schedule, run)]
    return Space(model.num_blocks, schedule.num_timesteps, tuple(options), choices)


def smaller_networks(model: EarlyExitModel, schedule: Schedule, run: Path) -> list[str]:
    """Runs beside this one whose network can take steps for it and costs less, relative to the run folder."""
    found = []
    for other in list_runs(run.resolve().parent)[0]:
        if other.path == run.resolve() or not other.checkpoints:
            continue
        try:
            network, info = load_checkpoint(other.checkpoints[-1])
            check_network(other.name, network, Schedule(**info["schedule"]), model, schedule)
        except UserError:
            continue
        if model_cost(network).full < model_cost(model).full:
            found.append(f"../{other.name}")
    return found
