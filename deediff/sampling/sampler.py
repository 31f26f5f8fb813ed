"""The sampler: model × solver × exit policy → one `Step` per denoising step of each batch.

It reads and writes no files. It yields each step to its caller and stops when the caller stops iterating.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deediff.calibration.recalibrated import recalibrate
from deediff.cost.cost import Cost
from deediff.devices import autocast, keep_freed_memory
from deediff.diffusion.clipping import clip_image
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import SOLVERS, Solver, make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.plans.file import find_plan
from deediff.policies import ExitPolicy, make_policy
from deediff.readouts import Readout, ReadoutState, make_readout
from deediff.readouts.skip import Skip
from deediff.sampling.apart import check_apart, denoise_apart
from deediff.sampling.condition import class_numbers, make_condition
from deediff.sampling.cpu import one_thread
from deediff.sampling.forward import predict
from deediff.sampling.past import Keepers, Past, Recall, fill_in, find_keepers
from deediff.sampling.planned import PlannedStep, destination, plan_cost, plan_steps, run_folder, taken_by
from deediff.sampling.request import Prediction, Request
from deediff.sampling.step import Networks, NotFinite, Step, in_epsilon
from deediff.settings import SamplingSettings, check_spacing
from deediff.traces.pairing import settings_differences


@dataclass(frozen=True, eq=False)
class Sampling:
    """A sampling job that was checked against one model: its settings, its solver, its prepared policy."""

    model: EarlyExitModel
    settings: SamplingSettings
    solver: Solver
    policy: ExitPolicy
    planned: Sequence[PlannedStep]  # (S,)
    recalibration_sha256: str | None = None  # of the calibration that corrects u, if one does

    @property
    def has_uncertainty(self) -> bool:
        """Whether UEMs are evaluated at some step."""
        queried = any(step.policy.needs_uncertainty for step in self.planned)
        runs = any(step.readout is None and step.network is None for step in self.planned)
        return self.model.uem is not None and (queried or (runs and self.settings.record == "full"))

    @cached_property
    def keepers(self) -> Keepers:
        """What full evaluations store for later steps."""
        return find_keepers([(step.policy, step.exits) for step in self.planned], self.model)

    @property
    def skips(self) -> bool:
        """Whether samples skip steps that others take."""
        return any(isinstance(step.exits, Skip) for step in self.planned)

    def cost(self) -> Cost:
        """GFLOPs of one image and one step; guidance and steps of another network included."""
        return plan_cost(self.model, self.planned, self.settings.guidance is not None)

    def steps(
        self,
        parts: Sequence[range] | None = None,  # ranges of sample numbers in place of the settings' batches
        cancelled: Callable[[], bool] | None = None,  # called before each step; True ends the iteration
    ) -> Iterator[Step]:
        """Sample batch after batch."""
        keep_freed_memory()
        parts = self.settings.batches if parts is None else parts
        done, total, networks = 0, len(parts) * len(self.solver.timesteps), Networks()
        for part in parts:
            stream = denoise(networks, self, part) if not self.skips else denoise_apart(networks, self, part)
            while not (cancelled is not None and cancelled()):
                step = next(stream, None)
                if step is None:
                    break
                done += 1
                yield replace(step, done=done, total=total)
            else:
                return


def denoise(networks: Networks, job: Sampling, samples: range) -> Iterator[Step]:
    """Denoise one batch (sample numbers `samples`) from noise to images, one `Step` at a time."""
    model, solver, settings = job.model, job.solver.fresh(), job.settings
    device, seed = next(model.parameters()).device, settings.seed
    condition = make_condition(model, samples, settings.classes, settings.guidance)
    x = sample_noise(seed, samples, 0, model.image_shape).to(device)  # (B,C,H,W)
    x0: Tensor | None = None
    keepers = job.keepers
    slots = max((keeper.order + 1 for keeper, _ in keepers.values()), default=0)
    signaller = job.policy.signaller
    reads_change = signaller is not None and signaller.reads_change
    keeps_input = signaller is not None and signaller.keeps_input
    past = Past(len(samples), slots, 1 if settings.guidance is None else 2)
    with ThreadPoolExecutor(1) as prefetching:
        for s, (timestep, planned) in enumerate(zip(solver.timesteps, job.planned, strict=True)):
            if solver.needs_noise(s):
                upcoming = prefetching.submit(sample_noise, seed, samples, s + 1, model.image_shape)
            with torch.inference_mode(), one_thread() as threads:
                state = ReadoutState(x, solver.alpha_bar(s), solver.alpha_bar(s + 1), solver.log_snr(s), past.earlier)
                if planned.network is not None and planned.network.backbone is not model.backbone:
                    past.drop()
                if planned.readout is None:
                    request = Request(
                        planned.policy,
                        s,
                        timestep,
                        np.arange(samples.start, samples.stop),
                        settings.record if planned.network is None else "exit",
                        settings.deviations,
                        condition,
                        None
                        if planned.network
                        else Recall(past, s, state.log_snr, planned.exits, keepers, keeps_input),
                    )
                    with autocast(device, settings.dtype):
                        p = predict(networks.of(planned.network or model), x, request, threads)
                    p = in_epsilon(p.padded(model.num_blocks), (planned.network or model).prediction, state)
                    if isinstance(planned.exits, Readout):
                        p = replace(p, output=fill_in(planned.exits, state, p.output, p.exited))
                else:
                    p = without_network(planned.readout, state, model.num_blocks)
                noise = upcoming.result().to(device) if solver.needs_noise(s) else None
                previous_x0, x0, eps = x0, solver.predict_x0(s, x, p.output), p.output
                if settings.clip_x0:
                    x0 = clip_image(x0, settings.dynamic_threshold)
                    eps = solver.to_epsilon(s, x, x0)
                past.add(s, state, eps, taken_by(planned, p.exited, p.signal, reads_change))
                x = destination(planned, state, solver.step(s, x, eps, noise, previous_x0), p.exited)
                finite = torch.isfinite(x).flatten(1).all(1)  # (B,)
            if not finite.all():
                bad = samples[int((~finite).nonzero()[0])]
                raise NotFinite(f"the network gave a value that is not finite for sample {bad} at timestep {timestep}")
            since = np.where(past.last_full < 0, -1, s - past.last_full)
            yield Step(s, timestep, samples, x, x0, p.exit_layer, p.uncertainty, p.deviation, p.signal, since)


def without_network(readout: Readout, state: ReadoutState, num_blocks: int) -> Prediction:
    """The prediction of a readout that runs no block: exit 0, without u."""
    batch = len(state.x)
    missing = torch.full((batch, num_blocks), torch.nan)
    return Prediction(readout.epsilon(state), torch.zeros(batch, dtype=torch.int64), missing, None)


def prepare_sampling(
    model: EarlyExitModel,
    settings: SamplingSettings,
    schedule: Schedule | None = None,  # in place of the one that the model was trained with
    *,
    policy: ExitPolicy | None = None,  # in place of the one that the settings name
    solver: Solver | None = None,  # likewise
) -> Sampling:
    """Check the settings against a model, and prepare the policy. Raises UserError when they do not fit it."""
    recalibration = None
    if settings.recalibrated:
        model = copy.deepcopy(model)  # `recalibrate` works in place, and the caller's model must not change
        recalibration = recalibrate(model).sha256
    if settings.deviations and model.heads is None:
        raise UserError("deviations need record='full' and a model with output heads")
    settings = replace(settings, classes=class_numbers(model, settings.classes))
    make_condition(model, range(0), settings.classes, settings.guidance)  # raises when they do not fit
    chosen = make_policy(settings.policy) if policy is None else policy
    if chosen.seed not in (None, settings.seed):
        raise UserError(f"policy {chosen.spec} was made for seed {chosen.seed}, not for seed {settings.seed}")
    if solver is not None and settings.plan is not None:
        raise UserError("a plan decides the solver: leave solver out")
    if solver is None:
        steps = settings.timesteps or settings.steps
        solver = make_solver(settings.solver, schedule or model.schedule, steps, settings.spacing, settings.eta)
    readout = make_readout(settings.readout)
    readout = readout.prepared(model) if isinstance(readout, Readout) else readout
    if readout is not None or (settings.plan is not None and settings.plan.policy_readouts):
        chosen = chosen.read_out_by_others()
    chosen.check(model, solver.schedule)
    chosen = chosen.prepared(model, solver, settings.guidance)
    if settings.plan is not None and not (settings.plan.uses_policy or chosen.spec == "never"):
        raise UserError(f"the plan fixes the exits of every step, so leave policy {chosen.spec} out")
    guided = settings.guidance is not None
    planned = plan_steps(settings.plan, solver.timesteps, model, solver.schedule, chosen, guided, readout)
    if settings.deviations and any(step.network is not None or step.readout is not None for step in planned):
        named = f"policy {chosen.spec}" if settings.plan is None else "the plan"
        raise UserError(
            f"deviations compare all exits of this network at every step, but {named} has steps of another network or "
            "of a readout without one: leave deviations out"
        )
    check_apart(planned, solver, settings.deviations)
    resolved = _resolved(settings, model, chosen, solver)
    if chosen.recording is not None and (differs := settings_differences(chosen.recording, resolved)):
        raise UserError(
            f"policy {chosen.spec}: that trace was sampled from other noise (different: {', '.join(differs)}); "
            "record one with the settings of this sampling"
        )
    return Sampling(model, resolved, solver, chosen, planned, recalibration)


def _resolved(
    settings: SamplingSettings, model: EarlyExitModel, policy: ExitPolicy, solver: Solver
) -> SamplingSettings:
    """The settings with the policy's full text, every timestep, the precision, and the identity of the weights."""
    on_cuda = next(model.parameters()).device.type == "cuda"
    if settings.dtype == "bfloat16" and not on_cuda:
        raise UserError("dtype bfloat16 needs a CUDA device: use --dtype auto or float32 here")
    path, sha256 = (None, None) if model.origin is None else model.origin
    return replace(
        settings,
        policy=policy.spec,
        solver=next((name for name, kind in SOLVERS.items() if type(solver) is kind), settings.solver),
        eta=getattr(solver, "eta", 0.0),
        timesteps=tuple(solver.timesteps),
        steps=len(solver.timesteps),
        dtype=("bfloat16" if on_cuda else "float32") if settings.dtype == "auto" else settings.dtype,
        checkpoint=None if path is None else path.name,
        checkpoint_sha256=sha256,
    )


def sample(
    model: EarlyExitModel,
    settings: SamplingSettings | None = None,
    *,
    policy: str | ExitPolicy | None = None,
    solver: str | Solver | None = None,
    schedule: Schedule | None = None,  # in place of the one that the model was trained with
    parts: Sequence[range] | None = None,  # ranges of sample numbers in place of batches
    cancelled: Callable[[], bool] | None = None,  # called before each step; True ends the iteration
    **fields: Any,  # of SamplingSettings, e.g. num_samples=16; plan: also a plan file, or its name in the model's run
) -> Iterator[Step]:
    """Sample images; yields a `Step` per denoising step, batch after batch.

    The noise of sample k at step s depends on (seed, k, s) only. A class-conditional model draws class
    `classes[k mod …]`, a number or name, for sample k (default: all in turn); `guidance` is the scale of
    classifier-free guidance (1: none), which evaluates the network a second time with the last label as "no class".
    `Step.done` and `Step.total` give the progress; to stop early, stop iterating.
    Raises UserError, before the first step, for settings that do not fit the model.
    """
    if isinstance(plan := fields.get("plan"), str | Path):
        fields["plan"] = find_plan(str(plan), run_folder(model))
    check_spacing(fields)
    settings = replace(settings or SamplingSettings(), **fields)
    if isinstance(policy, str):
        settings, policy = replace(settings, policy=policy), None
    if isinstance(solver, str):
        settings, solver = replace(settings, solver=solver), None
    return prepare_sampling(model, settings, schedule, policy=policy, solver=solver).steps(parts, cancelled)
