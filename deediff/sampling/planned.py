"""The steps of a plan checked against a model: what runs at each step, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.cost.components import model_cost
from deediff.cost.cost import Cost
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans import Plan, PlanStep
from deediff.policies import ExitPolicy, Never
from deediff.policies.dual import check_network
from deediff.policies.fixed import Fixed
from deediff.readouts import Readout, make_readout


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """What runs at one step: a readout without blocks, or a network with a policy."""

    policy: ExitPolicy
    decides: bool = True  # whether the exits depend on the job's policy
    network: EarlyExitModel | None = None  # in place of the model
    readout: Readout | None = None  # in place of a network
    sha256: str | None = None  # of the file that the readout or the network was loaded from
    source: str = ""  # its name in the plan

    def gflops(self, model: EarlyExitModel, evaluations: int, attention: bool = True) -> float | None:
        """GFLOPs for one image; None where they depend on the exits that the policy decides."""
        if self.readout is not None:
            return self.readout.gflops
        if self.decides:
            return None
        cost = model_cost(self.network or model)
        plain = cost if attention else cost.without_attention
        assert plain is not None
        layer = self.policy.layer if isinstance(self.policy, Fixed) else len(cost.blocks)
        return float(plain.at_exit(with_uem=False)[layer]) * evaluations


def plan_steps(
    plan: Plan | None,  # None: the policy decides at every timestep
    timesteps: Sequence[int],
    model: EarlyExitModel,
    schedule: Schedule,
    policy: ExitPolicy,  # checked and prepared
    guided: bool = False,
) -> list[PlannedStep]:
    """One entry per timestep. Raises UserError, naming the plan, when the plan does not fit the model."""
    if plan is None:
        others = [policy.network(t) for t in timesteps]
        return [PlannedStep(policy) if other is None else PlannedStep(Never(), False, other) for other in others]
    try:
        return _steps_of(plan, model, schedule, policy, guided)
    except UserError as error:
        raise UserError(f"plan {plan.name}: {error}" if plan.name else str(error)) from None


def _steps_of(
    plan: Plan, model: EarlyExitModel, schedule: Schedule, policy: ExitPolicy, guided: bool
) -> list[PlannedStep]:
    if plan.num_blocks != model.num_blocks:
        raise UserError(f"the plan is for a model of {plan.num_blocks} blocks, this one has {model.num_blocks}")
    if plan.num_timesteps != schedule.num_timesteps:
        raise UserError(
            f"the plan is for {plan.num_timesteps} timesteps, this model was trained with {schedule.num_timesteps}"
        )
    networks: dict[str, tuple[EarlyExitModel, str]] = {}
    readouts: dict[str, Readout | None] = {}
    found, predictions = list[PlannedStep](), 0
    for step in plan.steps:
        if step.readout not in readouts:
            readout = make_readout(step.readout)
            readouts[step.readout] = None if readout is None else readout.prepared(model)
        if step.network is not None and step.network not in networks:
            networks[step.network] = _load_network(step.network, model, schedule, guided)
        planned = _plan_step(step, model, policy, readouts[step.readout], networks.get(step.network or ""))
        if planned.readout is not None and planned.readout.needs_earlier > predictions:
            raise UserError(
                f"readout {step.readout} at timestep {step.timestep} needs {planned.readout.needs_earlier} or more "
                f"predictions before it, and there are {predictions}: place it after more steps, or lower its order"
            )
        predictions += planned.readout is None or planned.readout.predicts
        found.append(planned)
    return found


def _plan_step(
    step: PlanStep,
    model: EarlyExitModel,
    policy: ExitPolicy,
    readout: Readout | None,
    loaded: tuple[EarlyExitModel, str] | None,  # another network, and the SHA-256 of its weights
) -> PlannedStep:
    at = f"at timestep {step.timestep}"
    if readout is not None:
        if step.exit_layer != 0:
            raise UserError(f"readout {step.readout} {at} runs no block: give it exit_layer 0")
        if loaded is not None:
            raise UserError(f"readout {step.readout} {at} runs no network: leave network out")
        return PlannedStep(Never(), decides=False, readout=readout, sha256=readout.sha256, source=step.readout)
    if step.exit_layer == "policy":
        if loaded is not None or policy.network(step.timestep) is not None:
            raise UserError(f"{at[3:]}: the policy decides about exits of the model itself, not of another network")
        return PlannedStep(policy)
    network, sha256 = (model, None) if loaded is None else loaded
    layer = network.num_blocks if step.exit_layer == "full" else step.exit_layer
    if not network.has_exit(layer):
        named = "this model" if loaded is None else f"network {step.network}"
        raise UserError(f"the plan exits at layer {layer} {at}, where {named} has no trained exit")
    chosen = Never() if layer == network.num_blocks else Fixed(layer)
    return PlannedStep(chosen, False, None if loaded is None else network, None, sha256, step.network or "")


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


def plan_content(steps: Sequence[PlannedStep]) -> dict[str, str]:
    """SHA-256 of every file that a plan names, by its name in the plan."""
    return {step.source: step.sha256 for step in steps if step.sha256 is not None}


def plan_cost(model: EarlyExitModel, steps: Sequence[PlannedStep], guided: bool) -> Cost:
    """GFLOPs of one image and one step; with guidance the network is evaluated twice."""
    evaluations = 2 if guided else 1
    cost = model_cost(model).times(evaluations)
    if all(step.decides for step in steps):
        return cost
    with_attention, without = ([step.gflops(model, evaluations, kind) for step in steps] for kind in (True, False))
    return cost.with_fixed(with_attention, without)
