"""The sampler: solver × policy × model. It really exits: what has left is not computed any more.

It knows nothing of files or screens; it yields what happened at each step, and stops when its
consumer stops asking.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deediff.devices import autocast, keep_freed_memory
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.prediction import epsilon_scale, to_epsilon
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver, make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies import ExitPolicy, Never
from deediff.policies.registry import make_policy
from deediff.sampling.cpu import one_thread
from deediff.sampling.forward import Condition, Record, Request, predict
from deediff.sampling.network import Network


class NotFinite(UserError):
    """The network gave NaN or infinity."""


@dataclass(frozen=True)
class Step:
    """One denoising step of one batch."""

    step: int  # 0, 1, …
    timestep: int  # diffusion t
    samples: range  # sample numbers of this batch
    x: Tensor  # (B,C,H,W) after the step
    x0: Tensor  # (B,C,H,W) predicted clean image at this step
    exit_layer: Tensor  # (B,) int64
    uncertainty: Tensor  # (B,N) float32, NaN where not evaluated
    deviation: Tensor | None  # (B,N) float32
    done: int = 0  # steps of this job so far, all batches counted …
    total: int = 0  # … and in all


def make_condition(
    model: EarlyExitModel, samples: range, classes: Sequence[int] | None, guidance: float | None = None
) -> Condition | None:
    """Sample k is of class `classes[k mod their number]`; None for an unconditional model. Raises UserError."""
    classes = _check_classes(model, classes, guidance)
    if classes is None:
        return None
    labels = torch.tensor([classes[k % len(classes)] for k in samples], device=next(model.parameters()).device)
    return Condition(labels, guidance, null_label=model.backbone.num_classes - 1)


def denoise(
    network: Network,
    solver: Solver,
    policy: ExitPolicy,
    samples: range,  # sample numbers of this batch
    seed: int,
    record: Record = "exit",
    deviations: bool = False,
    classes: Sequence[int] | None = None,
    guidance: float | None = None,
) -> Iterator[Step]:
    """Denoise one batch from noise to images, one `Step` at a time."""
    model = network.model
    device = next(model.parameters()).device
    numbers = np.arange(samples.start, samples.stop)
    condition = make_condition(model, samples, classes, guidance)
    shallow: Network | None = None
    bf16 = autocast(device)
    x = sample_noise(seed, samples, 0, model.image_shape).to(device)
    x0: Tensor | None = None
    with ThreadPoolExecutor(1) as prefetching:
        for s, timestep in enumerate(solver.timesteps):
            if solver.needs_noise(s):
                upcoming = prefetching.submit(sample_noise, seed, samples, s + 1, model.image_shape)
            with torch.inference_mode(), one_thread() as threads:
                other = policy.network(timestep)
                with bf16:
                    if other is None:
                        request = Request(policy, s, timestep, numbers, record, deviations, condition)
                        p = predict(network, x, request, threads)
                    else:
                        shallow = shallow or Network(other)
                        p = predict(shallow, x, Request(Never(), s, timestep, numbers, condition=condition), threads)
                        p = p.padded(model.num_blocks)
                kind = (other or model).prediction
                eps = to_epsilon(kind, p.output.to(x.dtype), x, solver.alpha_bar(s))
                deviation = None if p.deviation is None else p.deviation * epsilon_scale(kind, solver.alpha_bar(s))
                noise = upcoming.result().to(device) if solver.needs_noise(s) else None
                previous_x0, x0 = x0, solver.predict_x0(s, x, eps)
                x = solver.step(s, x, eps, noise, previous_x0)
                finite = torch.isfinite(x).flatten(1).all(1)
            if not finite.all():
                bad = samples[int((~finite).nonzero()[0])]
                raise NotFinite(f"the network gave a value that is not finite for sample {bad} at timestep {timestep}")
            yield Step(s, timestep, samples, x, x0, p.exit_layer, p.uncertainty, deviation)


def batches(num_samples: int, batch_size: int, first_sample: int = 0) -> list[range]:
    """Sample numbers first_sample … first_sample + num_samples − 1, cut into batches."""
    end = first_sample + num_samples
    return [range(a, min(a + batch_size, end)) for a in range(first_sample, end, batch_size)]


def sample(
    model: EarlyExitModel,
    num_samples: int = 16,
    policy: str | ExitPolicy = "never",
    solver: str | Solver = "ddim",
    steps: int = 50,
    seed: int = 0,
    batch_size: int = 64,
    *,
    spacing: str = "trailing",
    eta: float = 0.0,
    record: Record = "exit",
    deviations: bool = False,
    first_sample: int = 0,
    schedule: Schedule | None = None,
    parts: Sequence[range] | None = None,
    classes: Sequence[int] | None = None,
    guidance: float | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Step]:
    """Sample images; yields a `Step` per denoising step, batch after batch.

    The noise of sample k at step s depends on (seed, k, s) only. `parts` replaces the batches by
    given ranges of sample numbers. A class-conditional model draws class `classes[k mod …]` for sample
    k (default: all in turn); `guidance` is the scale of classifier-free guidance (1: none), which asks
    the network a second time, with the last label as "no class". `Step.done` and `Step.total` tell the
    progress; to stop, stop asking for steps, or let `cancelled`, which is asked before each, return True.
    Raises UserError for settings that make no sense.
    """
    if num_samples < 1:
        raise UserError(f"the number of samples is {num_samples}, expected 1 or more")
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}, expected 1 or more")
    if not 0 <= seed < 2**63:
        raise UserError(f"the seed is {seed}, expected 0 or more (and below 2^63)")
    if record not in ("exit", "full"):
        raise UserError(f"record is {record!r}, expected 'exit' or 'full'")
    if deviations and (record != "full" or model.heads is None):
        raise UserError("deviations need record='full' and a model with output heads")
    make_condition(model, range(0), classes, guidance)  # raises before anything is computed
    chosen = make_policy(policy)
    if chosen.seed not in (None, seed):
        raise UserError(f"policy {chosen.spec} knows the samples of seed {chosen.seed} only, not of seed {seed}")
    if isinstance(solver, str):
        solver = make_solver(solver, schedule or Schedule(), steps, spacing, eta)
    chosen.check(model, solver.schedule)
    chosen = chosen.prepared(model, solver, guidance)
    if deviations and chosen.network(solver.timesteps[0]) is not None:
        raise UserError(f"deviations compare exits of one network, but policy {chosen.spec} uses two: leave them out")
    if parts is None:
        parts = batches(num_samples, batch_size, first_sample)
    return _sample(model, solver, chosen, parts, seed, record, deviations, classes, guidance, cancelled)


def _check_classes(
    model: EarlyExitModel, classes: Sequence[int] | None, guidance: float | None
) -> Sequence[int] | None:
    """The classes to draw from, None for an unconditional model. Raises UserError when they do not fit the model."""
    labels = model.backbone.num_classes
    if not labels:
        if classes is not None or guidance is not None:
            raise UserError("this model is unconditional: it takes neither classes nor a guidance scale")
        return None
    if guidance is not None and not model.null_label:
        raise UserError("guidance needs a label that means no class, which this model has not learnt: --label-dropout")
    if guidance is not None and not 0 <= guidance < math.inf:
        raise UserError(f"the guidance scale is {guidance}, expected a number ≥ 0")
    if classes is None:
        return range(labels - model.null_label)
    if not classes or not all(0 <= label < labels for label in classes):
        raise UserError(f"the classes are {list(classes)}, expected some of 0 … {labels - 1}")
    return classes


def _sample(
    model: EarlyExitModel,
    solver: Solver,
    policy: ExitPolicy,
    parts: Sequence[range],
    seed: int,
    record: Record,
    deviations: bool,
    classes: Sequence[int] | None,
    guidance: float | None,
    cancelled: Callable[[], bool] | None,
) -> Iterator[Step]:
    keep_freed_memory()
    done, total, network = 0, len(parts) * len(solver.timesteps), Network(model)
    for part in parts:
        stream = denoise(network, solver, policy, part, seed, record, deviations, classes, guidance)
        while not (cancelled is not None and cancelled()):
            step = next(stream, None)
            if step is None:
                break
            done += 1
            yield replace(step, done=done, total=total)
        else:
            return
