"""Sampling in which every sample takes solver steps between timesteps of its own; each evaluation's batch is re-formed.

A sample equals one that is sampled alone at the timesteps which it did not skip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.devices import autocast
from deediff.diffusion.clipping import clip_image
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.policies import Never
from deediff.policies.base import ExitPolicy, LayerState
from deediff.readouts import ReadoutState
from deediff.readouts.skip import Skip
from deediff.sampling.condition import make_condition
from deediff.sampling.cpu import one_thread
from deediff.sampling.forward import predict
from deediff.sampling.past import Past, Recall, Taken
from deediff.sampling.planned import PlannedStep
from deediff.sampling.request import Request
from deediff.sampling.step import Networks, NotFinite, Step, in_epsilon

if TYPE_CHECKING:
    from deediff.sampling.sampler import Sampling

Rows = NDArray[np.int64]


def check_apart(planned: Sequence[PlannedStep], solver: Solver, deviations: bool) -> None:
    """Raises UserError when steps are to be skipped and solver, policy or plan do not allow it."""
    skipping = [step.policy for step in planned if isinstance(step.exits, Skip)]
    if not skipping:
        return
    solver.between([0])  # raises where steps of different lengths cannot be taken
    if solver.stochastic:
        raise UserError("readout skip needs a solver that draws no noise: ddim with eta 0, or dpm-solver++")
    if deviations or not all(policy.reads_past_only for policy in skipping):
        raise UserError(
            "readout skip needs a policy that decides before x reaches the timestep, every:k or drift:δ without "
            "bounds, and no deviations"
        )
    if any(not isinstance(step.exits, Skip) and not _is_full(step) for step in planned):
        raise UserError("readout skip is for plans whose other steps run the full network: leave others out")


def _is_full(step: PlannedStep) -> bool:
    return step.readout is None and step.network is None and isinstance(step.policy, Never)


class Apart:
    """x of B samples, each at the timestep that it visited last."""

    def __init__(self, solver: Solver, x: Tensor):
        self.solver, self.x = solver, x
        self.x0, self.eps, self.previous_x0 = (torch.zeros_like(x) for _ in range(3))
        self.last, self.before = (
            np.full(len(x), -1),
            np.full(len(x), -1),
        )  # (B,) steps visited last, and before; −1: none

    def arrive(self, step: int, rows: Rows) -> None:
        """Take samples `rows` (n,) from where they are to `step`, or after the last step to the end."""
        for before, last in {(int(b), int(a)) for b, a in zip(self.before[rows], self.last[rows], strict=True)}:
            if last < 0:  # at the first step samples are there
                continue
            group = rows[(self.before[rows] == before) & (self.last[rows] == last)]
            visited = [s for s in (before, last, step) if 0 <= s < len(self.solver.timesteps)]
            solver, at = self.solver.between(visited), torch.from_numpy(group).to(self.x.device)
            previous = self.previous_x0[at] if before >= 0 else None
            self.x[at] = solver.step(visited.index(last), self.x[at], self.eps[at], None, previous)

    def visit(self, step: int, rows: Rows, eps: Tensor, x0: Tensor) -> None:
        """Take in the predictions (n,C,H,W) of samples `rows` at `step`."""
        at = torch.from_numpy(rows).to(self.x.device)
        self.previous_x0[at], self.x0[at], self.eps[at] = self.x0[at], x0, eps
        self.before[rows], self.last[rows] = self.last[rows], step


def denoise_apart(networks: Networks, job: Sampling, samples: range) -> Iterator[Step]:
    """As `denoise`; a sample's x after a step that it skipped is still that of the timestep which it visited last."""
    model, solver, settings = job.model, job.solver, job.settings
    device, blocks, count = next(model.parameters()).device, model.num_blocks, len(samples)
    condition = make_condition(model, samples, settings.classes, settings.guidance)
    apart = Apart(solver, sample_noise(settings.seed, samples, 0, model.image_shape).to(device))
    past, signaller = Past(count, 0, 1 if settings.guidance is None else 2), job.policy.signaller
    for s, (timestep, planned) in enumerate(zip(solver.timesteps, job.planned, strict=True)):
        with torch.inference_mode(), one_thread() as threads:
            skipped, signal = decide(planned.policy, past, s, timestep, solver.log_snr(s), samples, device)
            rows = (~skipped).nonzero()[0]
            apart.arrive(s, rows)
            uncertainty = torch.full((count, blocks), torch.nan)
            if len(rows):
                index = torch.from_numpy(rows).to(device)
                x = apart.x[index]
                here = None if condition is None else replace(condition, labels=condition.labels[index])
                numbers = rows + samples.start
                request = Request(Never(), s, timestep, numbers, settings.record, condition=here)
                with autocast(device, settings.dtype):
                    p = predict(networks.of(model), x, request, threads)
                state = ReadoutState(x, solver.alpha_bar(s), solver.alpha_bar(s + 1), solver.log_snr(s), ())
                eps = in_epsilon(p, model.prediction, state).output
                uncertainty[rows] = p.uncertainty
                x0 = solver.predict_x0(s, x, eps)
                if settings.clip_x0:
                    x0 = clip_image(x0, settings.dynamic_threshold)
                    eps = solver.to_epsilon(s, x, x0)
                apart.visit(s, rows, eps, x0)
            state = ReadoutState(apart.x, solver.alpha_bar(s), solver.alpha_bar(s + 1), solver.log_snr(s), ())
            change = signaller is not None and signaller.reads_change
            past.add(s, state, apart.eps.clone(), Taken(~skipped, ~skipped, signal, change))
            if s == len(solver.timesteps) - 1:
                apart.arrive(s + 1, np.arange(count))
            finite = torch.isfinite(apart.x).flatten(1).all(1)
        if not finite.all():
            bad = samples[int((~finite).nonzero()[0])]
            raise NotFinite(f"the network gave a value that is not finite for sample {bad} at timestep {timestep}")
        since = np.where(past.last_full < 0, -1, s - past.last_full)
        exits = torch.from_numpy(np.where(skipped, 0, blocks))
        yield Step(s, timestep, samples, apart.x.clone(), apart.x0.clone(), exits, uncertainty, None, signal, since)


def decide(
    policy: ExitPolicy, past: Past, step: int, timestep: int, log_snr: float, samples: range, device: torch.device
) -> tuple[NDArray[np.bool_], Tensor | None]:
    """Which samples (B,) skip a step, and the signal (B,) by which, from their past alone."""
    rows = np.arange(len(samples))
    state = LayerState(0, 0, step, timestep, rows + samples.start, since_full=past.since_full(step))
    if (signaller := policy.signaller) is not None:
        view = Recall(past, step, log_snr).view(rows, lambda layer: torch.empty(0), device)
        state = state._replace(signal=signaller.signal(state, view))
    decision = policy.should_exit(state)
    signal = None if state.signal is None else state.signal.cpu()
    if isinstance(decision, bool):
        return np.full(len(rows), decision), signal
    return decision.cpu().numpy(), signal
