"""The steps of a plan checked against a model: what runs at each step, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.cost.components import model_cost
from deediff.cost.cost import Cost
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from deediff.policies import ExitPolicy, Never
from deediff.policies.at_layer import AtLayer
from deediff.policies.dual import check_network
from deediff.policies.fixed import Fixed
from deediff.readouts import Readout, ReadoutState, StateReadout, make_readout
from deediff.readouts.memory import Deep
from deediff.readouts.skip import Skip
from deediff.sampling.past import Taken


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """What runs at one step: a readout without blocks, or a network with a policy."""

    policy: ExitPolicy
    decides: bool = True  # whether the exits depend on the job's policy
    network: EarlyExitModel | None = None  # in place of the model
    readout: Readout | None = None  # in place of a network
    exits: Readout | StateReadout | None = None  # of samples that exit; None: the output heads
    sha256: str | None = None  # of the file that the readout or the network was loaded from
    source: str = ""  # its name in the plan

    def gflops(self, model: EarlyExitModel, evaluations: int, attention: bool = True) -> float | None:
        """GFLOPs for one image; None where they depend on the exits that the policy decides."""
        if self.readout is not None:
            return self.readout.gflops
        if self.decides:
            return None
        cost = exit_cost(model_cost(self.network or model).times(evaluations), self.exits)
        plain = cost if attention else cost.without_attention
        assert plain is not None
        layer = self.policy.layer if isinstance(self.policy, Fixed) else len(cost.blocks)
        return float(plain.at_exit(with_uem=False)[layer])


def exit_cost(cost: Cost, readout: Readout | StateReadout | None) -> Cost:
    """A cost with exits that this readout reads out; of several evaluations, as under guidance, if `cost` is."""
    if readout is None:
        return cost
    if isinstance(readout, StateReadout):
        return cost.with_exits(readout.gflops)
    if isinstance(readout, Skip):
        return cost.with_exits(lambda cost, layer: math.nan if layer else -cost.embed)  # not even the embedding runs
    return cost.with_exits(lambda _cost, _layer: readout.gflops)


def plan_steps(
    plan: Plan | None,  # None: the policy decides at every timestep
    timesteps: Sequence[int],
    model: EarlyExitModel,
    schedule: Schedule,
    policy: ExitPolicy,  # checked and prepared
    guided: bool = False,
    readout: Readout | StateReadout | None = None,  # prepared, of exits that the policy decides; None: output heads
) -> list[PlannedStep]:
    """One entry per timestep. Raises UserError, naming the plan, when the plan does not fit the model."""
    if plan is None:
        others = [policy.network(t) for t in timesteps]
        decided = _decided(model, policy, readout)
        found = [decided if other is None else PlannedStep(Never(), False, other) for other in others]
        return full_before_memory(found)
    try:
        return full_before_memory(_steps_of(plan, model, schedule, _Decider(policy, readout), guided))
    except UserError as error:
        raise UserError(f"plan {plan.name}: {error}" if plan.name else str(error)) from None


def full_before_memory(steps: Sequence[PlannedStep]) -> list[PlannedStep]:
    """The steps, with the full network where exits would read a memory that not every sample has yet."""
    found, evaluated, predicted = list[PlannedStep](), False, False
    for step in steps:
        ready = evaluated if isinstance(step.exits, StateReadout) else predicted or not needs_past(step.exits)
        found.append(step if ready else PlannedStep(Never(), decides=False))
        runs = found[-1].readout is None and found[-1].network is None
        evaluated = found[-1].network is None and (evaluated or (runs and isinstance(found[-1].policy, Never)))
        predicted |= found[-1].readout is None or found[-1].readout.predicts
    return found


def needs_past(readout: Readout | StateReadout | None) -> bool:
    """Whether a readout reads the sample's earlier evaluations."""
    return isinstance(readout, StateReadout) or (readout is not None and readout.needs_earlier > 0)


class _Decider(NamedTuple):
    """The job's policy, and the readout of its exits."""

    policy: ExitPolicy
    readout: Readout | StateReadout | None


def _decided(model: EarlyExitModel, policy: ExitPolicy, readout: Readout | StateReadout | None) -> PlannedStep:
    """A step whose exits the policy decides."""
    if isinstance(policy, Never):
        return PlannedStep(policy)
    if isinstance(readout, StateReadout):
        readout.check(model, policy.fixed_exit_layers(model))
        policy = AtLayer(policy, readout.layer) if isinstance(readout, Deep) else policy
    return PlannedStep(
        policy, exits=readout, sha256=getattr(readout, "sha256", None), source=getattr(readout, "spec", "")
    )


def _steps_of(
    plan: Plan, model: EarlyExitModel, schedule: Schedule, decider: _Decider, guided: bool
) -> list[PlannedStep]:
    if plan.num_blocks != model.num_blocks:
        raise UserError(f"the plan is for a model of {plan.num_blocks} blocks, this one has {model.num_blocks}")
    if plan.num_timesteps != schedule.num_timesteps:
        raise UserError(
            f"the plan is for {plan.num_timesteps} timesteps, this model was trained with {schedule.num_timesteps}"
        )
    networks: dict[str, tuple[EarlyExitModel, str]] = {}
    readouts: dict[str, Readout | StateReadout | None] = {}
    found, predictions, evaluations = list[PlannedStep](), 0, 0
    for step in plan.steps:
        if step.readout not in readouts:
            readout = make_readout(step.readout)
            readouts[step.readout] = readout.prepared(model) if isinstance(readout, Readout) else readout
        if step.network is not None and step.network not in networks:
            networks[step.network] = _load_network(step.network, model, schedule, guided)
        planned = _plan_step(step, model, decider, readouts[step.readout], networks.get(step.network or ""))
        needed, there, what = 0, 0, "predictions"
        if planned.readout is not None:
            needed, there = planned.readout.needs_earlier, predictions
        elif isinstance(planned.exits, StateReadout) and not planned.decides and evaluations:
            needed, there, what = planned.exits.order + 1, evaluations, "full evaluations"
        if needed > there:
            raise UserError(
                f"readout {step.readout} at timestep {step.timestep} needs {needed} or more {what} before it, and "
                f"there are {there}: place it after more steps, or lower its order"
            )
        predictions += planned.readout is None or planned.readout.predicts
        full = planned.readout is None and planned.network is None and isinstance(planned.policy, Never)
        evaluations = 0 if planned.network is not None else evaluations + full
        found.append(planned)
    if len({planned.exits for planned in found if planned.decides}) > 1:
        raise UserError("the policy's exits are read out in different ways: give its steps one readout")
    return found


def _plan_step(
    step: PlanStep,
    model: EarlyExitModel,
    decider: _Decider,
    readout: Readout | StateReadout | None,
    loaded: tuple[EarlyExitModel, str] | None,  # another network, and the SHA-256 of its weights
) -> PlannedStep:
    at = f"at timestep {step.timestep}"
    if step.exit_layer == "policy":
        if loaded is not None or decider.policy.network(step.timestep) is not None:
            raise UserError(f"{at[3:]}: the policy decides about exits of the model itself, not of another network")
        return _decided(model, decider.policy, readout or decider.readout)
    if isinstance(readout, Readout):
        if isinstance(readout, Skip):
            raise UserError(f"readout skip {at} leaves the timestep out for all samples: leave it out of the plan")
        if step.exit_layer != 0:
            raise UserError(f"readout {step.readout} {at} runs no block: give it exit_layer 0")
        if loaded is not None:
            raise UserError(f"readout {step.readout} {at} runs no network: leave network out")
        return PlannedStep(Never(), decides=False, readout=readout, sha256=readout.sha256, source=step.readout)
    network, sha256 = (model, None) if loaded is None else loaded
    layer = network.num_blocks if step.exit_layer == "full" else step.exit_layer
    if readout is not None:
        return _from_memory(step, readout, layer, model)
    if not network.has_exit(layer):
        named = "this model" if loaded is None else f"network {step.network}"
        raise UserError(f"the plan exits at layer {layer} {at}, where {named} has no trained exit")
    chosen = Never() if layer == network.num_blocks else Fixed(layer)
    return PlannedStep(chosen, False, None if loaded is None else network, sha256=sha256, source=step.network or "")


def _from_memory(step: PlanStep, readout: StateReadout, layer: int, model: EarlyExitModel) -> PlannedStep:
    """A step at which all samples exit at one layer and are read out from memory."""
    at = f"at timestep {step.timestep}"
    if step.network is not None:
        raise UserError(f"readout {step.readout} {at} reads this model's own memory: leave network out")
    if layer == model.num_blocks or (isinstance(readout, Deep) and layer != readout.layer):
        expected = readout.layer if isinstance(readout, Deep) else f"0 … {model.num_blocks - 1}"
        raise UserError(f"readout {step.readout} {at} has exit_layer {layer}, expected {expected}")
    readout.check(model, {layer})
    return PlannedStep(Fixed(layer), decides=False, exits=readout)


def _load_network(name: str, model: EarlyExitModel, schedule: Schedule, guided: bool) -> tuple[EarlyExitModel, str]:
    """The network of this path, relative to the model's run, and the SHA-256 of its weights."""
    path = Path(name)
    if not path.is_absolute() and (run := run_folder(model)) is not None:
        path = run / path
    network, info = load_checkpoint(find_checkpoint(path))
    check_network(f"the plan's network {name}", network, Schedule(**info["schedule"]), model, schedule)
    if guided and not network.null_label:
        raise UserError(f"guidance needs a label that means no class, which the plan's network {name} has not learnt")
    return network.to(next(model.parameters()).device), info["sha256"]


def run_folder(model: EarlyExitModel) -> Path | None:
    """The run folder that a model was loaded from; None where it was loaded from a single file, or not at all."""
    if model.origin is None:
        return None
    folder = model.origin[0].resolve().parent
    return folder.parent if folder.name == "checkpoints" else None


def taken_by(step: PlannedStep, exited: NDArray[np.bool_], signal: Tensor | None, reads_change: bool) -> Taken:
    """How samples took a step, of which some (B,) exited before the last block."""
    if step.readout is not None:
        return Taken(np.full_like(exited, step.readout.predicts), np.zeros_like(exited))
    reused = step.exits is None or (isinstance(step.exits, Readout) and step.exits.predicts)
    full = ~exited if step.network is None else np.zeros_like(exited)
    return Taken(~exited | reused, full, signal, reads_change)


def destination(step: PlannedStep, state: ReadoutState, x: Tensor, exited: NDArray[np.bool_]) -> Tensor:
    """(B,C,H,W) x after the step, the solver's `x`, or where a readout takes the step itself."""
    if step.readout is not None:
        moved = step.readout.destination(state)
        return x if moved is None else moved
    if isinstance(step.exits, Readout) and (moved := step.exits.destination(state)) is not None:
        return torch.where(torch.from_numpy(exited).to(x.device).view(-1, 1, 1, 1), moved, x)
    return x


def remembers(steps: Sequence[PlannedStep]) -> bool:
    """Whether exits depend on earlier steps."""
    return any(step.policy.remembers or needs_past(step.exits) for step in steps if step.decides)


def signal_exit(steps: Sequence[PlannedStep], model: EarlyExitModel) -> int | None:
    """The exit layer of a policy that compares a signal with δ; None for other policies."""
    decided = [step.policy for step in steps if step.decides and step.policy.signaller is not None]
    return min(decided[0].possible_exits(model), default=None) if decided else None


def plan_content(steps: Sequence[PlannedStep]) -> dict[str, str]:
    """SHA-256 of every file that a plan names, by its name in the plan."""
    return {step.source: step.sha256 for step in steps if step.sha256 is not None}


def plan_cost(model: EarlyExitModel, steps: Sequence[PlannedStep], guided: bool) -> Cost:
    """GFLOPs of one image and one step; with guidance the network is evaluated twice."""
    evaluations = 2 if guided else 1
    decided = next((step.exits for step in steps if step.decides), None)
    cost = exit_cost(model_cost(model).times(evaluations), decided)
    if all(step.decides for step in steps):
        return cost
    with_attention, without = ([step.gflops(model, evaluations, kind) for step in steps] for kind in (True, False))
    return cost.with_fixed(with_attention, without)
