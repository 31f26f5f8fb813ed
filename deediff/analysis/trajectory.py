"""One sample's way from noise to image, recomputed from its seed; and the same with one decision changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.cost.components import model_cost
from deediff.datasets import to_uint8
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.models.heads import DecoderHead
from deediff.policies.fixed import Fixed
from deediff.policies.forced import Forced
from deediff.policies.never import Never
from deediff.readouts import StateReadout, make_readout
from deediff.recording.recompute import repeated_sampling, steps_of_sample
from deediff.sampling.planned import PlannedStep, full_before_memory
from deediff.sampling.sampler import Sampling
from deediff.traces.reader import Trace

HEAD, DECODER, NETWORK = "head", "decoder", "network"


@dataclass(frozen=True)
class ExitChoice:
    """How one step obtains its prediction."""

    layer: int
    """Exit layer, 0 … N: number of blocks run."""
    readout: str = HEAD
    """head: the exit's output head; decoder: the network's own last layers; network: another network, which the plan
    or the policy names for this step; else a readout without blocks, by its name in a plan (exit layer 0)."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The S steps of one sample."""

    job: Sampling
    number: int  # of the sample
    entering: Tensor  # (S,C,H,W) x_t that enters each step
    x0: Tensor  # (S,C,H,W) predicted clean image at each step
    final: Tensor  # (C,H,W) x after the last step
    exit_layers: NDArray[np.int8]  # (S,)
    gflops: NDArray[np.float64]  # (S,) evaluated UEMs included

    @property
    def timesteps(self) -> list[int]:
        """(S,) diffusion t."""
        return self.job.solver.timesteps

    @property
    def film(self) -> NDArray[np.uint8]:
        """(S,C,H,W) the predicted clean images, in grey levels."""
        return to_uint8(self.x0).cpu().numpy()

    @property
    def image(self) -> NDArray[np.uint8]:
        """(C,H,W) the sample itself, in grey levels."""
        return to_uint8(self.final).cpu().numpy()

    def distance(self, other: Trajectory) -> float:
        """RMS difference of the two samples' images, in grey levels (0 … 255)."""
        return float(np.sqrt(np.square(self.image.astype(float) - other.image).mean()))

    def choice(self, step: int) -> ExitChoice:
        """The decision that was taken at a step."""
        planned, layer = self.job.planned[step], int(self.exit_layers[step])
        if planned.readout is not None:
            return ExitChoice(layer, planned.readout.spec)
        if planned.exits is not None and layer < self.job.model.num_blocks:
            return ExitChoice(layer, planned.exits.spec)
        return ExitChoice(layer, HEAD if planned.network is None else NETWORK)


def follow(
    trace: Trace,
    number: int,  # of the sample in the trace
    model: EarlyExitModel,  # loaded from the trace's checkpoint
    schedule: Schedule,  # of the model's training
    on_step: Callable[[int, int], None] | None = None,  # (steps done, S)
    cancelled: Callable[[], bool] | None = None,
) -> Trajectory | None:
    """The trajectory of a sample of a trace, as exact as `recompute`; None when cancelled.

    Raises UserError when the trace cannot be repeated: it was imported, other weights or another calibration were
    given, or a file that its policy or plan names has changed.
    """
    return _sampled(repeated_sampling(trace, model, schedule), number, on_step, cancelled)


def force_exit(
    trajectory: Trajectory,
    step: int,  # 0 … S−1
    choice: ExitChoice,
    on_step: Callable[[int, int], None] | None = None,  # (steps done, S)
    cancelled: Callable[[], bool] | None = None,
) -> Trajectory | None:
    """The trajectory with this decision at one step, and the same noise; None when cancelled.

    The steps before are equal; at the steps after it the policy decides anew, from the changed x (closed loop). Of a
    policy that decides for the whole batch, the decision for the whole batch is changed. Raises UserError for a step
    that does not exist, or a choice that is not possible there.
    """
    job = trajectory.job
    if not 0 <= step < len(job.planned):
        raise UserError(f"there is no step {step}, expected 0 … {len(job.planned) - 1}")
    if job.skips:
        raise UserError("samples of this trace skip timesteps of their own: no decision of theirs can be changed")
    planned = list(job.planned)
    planned[step] = _forced_step(job, trajectory.exit_layers, step, choice)
    found = _sampled(replace(job, planned=full_before_memory(planned)), trajectory.number, on_step, cancelled)
    if found is not None and choice.readout == DECODER:
        cost = model_cost(job.model)
        evaluations = 1 if job.settings.guidance is None else 2
        found.gflops[step] = evaluations * (cost.embed + sum(cost.blocks[: choice.layer]) + cost.decode)
    return found


def read_by_decoder(model: EarlyExitModel) -> EarlyExitModel:
    """The same network and UEMs, with the network's own last layers as the output head of every exit."""
    return EarlyExitModel(model.backbone, model.uem, DecoderHead(), model.prediction)


def has_predictions(job: Sampling, step: int, needed: int) -> bool:
    """Whether a readout at a step can reuse so many earlier predictions."""
    return sum(p.readout is None or p.readout.predicts for p in job.planned[:step]) >= needed


def _forced_step(job: Sampling, exit_layers: NDArray[np.int8], step: int, choice: ExitChoice) -> PlannedStep:
    """What runs at a step whose decision is given. Raises UserError when that is not possible."""
    before, model = job.planned[step], job.model
    at = f"at timestep {job.solver.timesteps[step]}"
    if not 0 <= choice.layer <= model.num_blocks:
        raise UserError(f"there is no exit at layer {choice.layer}, expected 0 … {model.num_blocks}")
    if choice.readout == NETWORK:
        if before.network is None:
            raise UserError(f"no other network is named {at}: choose an exit of the model")
        return before
    if choice.readout == DECODER:
        return PlannedStep(Fixed(choice.layer), False, read_by_decoder(model), source=DECODER)
    readout = make_readout(choice.readout)
    if readout is None:
        if not model.has_exit(choice.layer):
            raise UserError(f"this model has no trained exit at layer {choice.layer}: choose another one")
        if before.decides:
            return replace(before, policy=Forced(before.policy, choice.layer))
        return PlannedStep(Fixed(choice.layer), decides=False)
    if isinstance(readout, StateReadout):
        readout.check(model, {choice.layer})
        if not any(int(layer) == model.num_blocks for layer in exit_layers[:step]):
            raise UserError(f"readout {choice.readout} has no full evaluation {at} to remember: choose a later step")
        return PlannedStep(Fixed(choice.layer), decides=False, exits=readout)
    if choice.layer != 0:
        raise UserError(f"readout {choice.readout} runs no block, so its exit layer is 0, not {choice.layer}")
    if not has_predictions(job, step, readout.needs_earlier):
        raise UserError(f"readout {choice.readout} has too few earlier predictions {at}: choose a later step")
    return PlannedStep(Never(), False, readout=readout.prepared(model), source=choice.readout)


def _sampled(
    job: Sampling,
    number: int,
    on_step: Callable[[int, int], None] | None,
    cancelled: Callable[[], bool] | None,
) -> Trajectory | None:
    """One sample of a job. None when cancelled."""
    steps = len(job.solver.timesteps)
    device = next(job.model.parameters()).device
    entering = [sample_noise(job.settings.seed, [number], 0, job.model.image_shape).to(device)]
    x0, exits = list[Tensor](), list[Tensor]()
    for step in steps_of_sample(job, number, cancelled):
        entering.append(step.x)
        x0.append(step.x0)
        exits.append(step.exit_layer)
        if on_step is not None:
            on_step(step.step + 1, steps)
    if len(x0) < steps:
        return None
    exit_layers = torch.cat(exits).numpy().astype(np.int8)
    gflops = job.cost().of_exits(exit_layers, job.policy.needs_uncertainty)
    last = entering.pop()[0]
    return Trajectory(job, number, torch.cat(entering), torch.cat(x0), last, exit_layers, gflops)
