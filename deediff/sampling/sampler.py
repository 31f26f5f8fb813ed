"""The sampler: solver × policy × model. It really exits: what has left is not computed any more.

It knows nothing of files or screens; it yields what happened at each step, and stops when its
consumer stops asking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deediff.devices import autocast
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver, make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.sampling.noise import sample_noise
from deediff.sampling.policies import ExitPolicy, Visit, as_mask, make_policy

Record = Literal["exit", "full"]

CPU_MICRO_BATCH = 16  # images; the fastest per image on the CPUs measured, by about a tenth


@dataclass(frozen=True)
class Prediction:
    """What one evaluation of the network gave, per sample."""

    eps: Tensor  # (B,C,H,W) predicted noise
    exit_layer: Tensor  # (B,) int64 on the CPU, 0 … N
    uncertainty: Tensor  # (B,N) float32 on the CPU; NaN where no UEM was evaluated
    deviation: Tensor | None  # (B,N) RMS(g_i − ε_full), when asked for


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


def predict_with_exits(
    model: EarlyExitModel,
    x: Tensor,  # (B,C,H,W)
    policy: ExitPolicy,
    step: int,
    timestep: int,
    samples: Tensor,  # (B,) sample numbers
) -> Prediction:
    """Run each block on the samples that are still in the network, and on no others.

    Compaction is immediate: block i processes exactly the samples whose exit layer is above i.
    """
    batch, blocks, device = len(x), model.num_blocks, x.device
    eps = torch.empty_like(x)
    exit_layer = torch.full((batch,), blocks)
    uncertainty = torch.full((batch, blocks), torch.nan, device=device)
    t = torch.full((batch,), timestep, device=device)
    backbone = model.backbone
    sources = {backbone.skip_source(i) for i in range(blocks)}
    skips: dict[int, tuple[Tensor, Tensor]] = {}  # block → its output, and which samples it holds
    alive = torch.arange(batch, device=device)  # rows of x still in the network
    state = backbone.embed(x, t)
    for i in range(blocks):
        u = None
        if policy.needs_uncertainty:
            u = model.uncertainty(i, state, t[: len(alive)])
            uncertainty[alive, i] = u
        leaves = as_mask(policy.leaves(Visit(i, step, timestep, samples[alive], u)), len(alive), device)
        if leaves.any():
            go, stay = leaves.nonzero()[:, 0], (~leaves).nonzero()[:, 0]
            gone = alive[go]
            eps[gone] = model.read_out(i, state.index_select(0, go)).to(eps.dtype)
            exit_layer[gone.cpu()] = i
            alive, state = alive[stay], state.index_select(0, stay)
            if not len(alive):
                break
        source = backbone.skip_source(i)
        skip = None
        if source is not None:
            skip, held = skips.pop(source)
            if len(held) > len(alive):
                skip = skip.index_select(0, torch.searchsorted(held, alive))  # both ascending
        state = backbone.block(i, state, skip)
        if i in sources:
            skips[i] = (state, alive)
    else:
        eps[alive] = model.read_out(blocks, state).to(eps.dtype)
    return Prediction(eps, exit_layer, uncertainty.cpu(), None)


def predict_all_layers(
    model: EarlyExitModel,
    x: Tensor,  # (B,C,H,W)
    policy: ExitPolicy,
    step: int,
    timestep: int,
    samples: Tensor,  # (B,) sample numbers
    deviations: bool = False,
) -> Prediction:
    """Run every block and UEM on every sample, but answer as the policy would: `record="full"`."""
    batch, blocks, device = len(x), model.num_blocks, x.device
    eps = torch.empty_like(x)
    exit_layer = torch.full((batch,), blocks, device=device)
    uncertainty = torch.full((batch, blocks), torch.nan, device=device)
    t = torch.full((batch,), timestep, device=device)
    heads_out: list[Tensor] = []
    for i, state in enumerate(model.backbone.states(x, t)):
        if i == blocks:
            full = model.read_out(blocks, state).to(eps.dtype)
            stays = exit_layer == blocks
            eps[stays] = full[stays]
            break
        u = model.uncertainty(i, state, t) if model.uem is not None else None
        if u is not None:
            uncertainty[:, i] = u
        leaves = as_mask(policy.leaves(Visit(i, step, timestep, samples, u)), batch, device)
        leaves = leaves & (exit_layer == blocks)
        if deviations:
            heads_out.append(model.read_out(i, state).float())
            eps[leaves] = heads_out[-1][leaves].to(eps.dtype)
        elif leaves.any():
            eps[leaves] = model.read_out(i, state[leaves]).to(eps.dtype)
        exit_layer[leaves] = i
    deviation = None
    if deviations:
        deviation = torch.stack([(g - full).square().mean(dim=(1, 2, 3)).sqrt() for g in heads_out], dim=1).cpu()
    return Prediction(eps, exit_layer.cpu(), uncertainty.cpu(), deviation)


def predict(
    model: EarlyExitModel,
    x: Tensor,  # (B,C,H,W)
    policy: ExitPolicy,
    step: int,
    timestep: int,
    samples: Tensor,  # (B,) sample numbers
    record: Record = "exit",
    deviations: bool = False,
    expected_exit: Tensor | None = None,  # (B,) on the CPU, for example the exit layers of the last step
) -> Prediction:
    """One evaluation of the network, on the CPU in micro-batches that fit its cache.

    Samples expected to leave at similar layers share a micro-batch, so that it shrinks rarely.
    """
    size = CPU_MICRO_BATCH if x.device.type == "cpu" else len(x)
    order = torch.arange(len(x)) if expected_exit is None else expected_exit.argsort(stable=True)
    back = order.argsort()
    parts = []
    for rows in order.to(x.device).split(size):
        if record == "full":
            parts.append(predict_all_layers(model, x[rows], policy, step, timestep, samples[rows], deviations))
        else:
            parts.append(predict_with_exits(model, x[rows], policy, step, timestep, samples[rows]))
    deviation = [p.deviation for p in parts if p.deviation is not None]
    return Prediction(
        torch.cat([p.eps for p in parts])[back.to(x.device)],
        torch.cat([p.exit_layer for p in parts])[back],
        torch.cat([p.uncertainty for p in parts])[back],
        torch.cat(deviation)[back] if deviation else None,
    )


def denoise(
    model: EarlyExitModel,
    solver: Solver,
    policy: ExitPolicy,
    samples: range,  # sample numbers of this batch
    seed: int,
    record: Record = "exit",
    deviations: bool = False,
) -> Iterator[Step]:
    """Denoise one batch from noise to images, one `Step` at a time."""
    device = next(model.parameters()).device
    numbers = torch.arange(samples.start, samples.stop, device=device)
    bf16 = autocast(device)
    x = sample_noise(seed, samples, 0, model.image_shape).to(device)
    x0: Tensor | None = None
    expected_exit: Tensor | None = None
    for s, timestep in enumerate(solver.timesteps):
        with torch.inference_mode():
            with bf16:
                p = predict(model, x, policy, s, timestep, numbers, record, deviations, expected_exit)
            expected_exit = p.exit_layer
            noise = None
            if solver.needs_noise(s):
                noise = sample_noise(seed, samples, s + 1, model.image_shape).to(device)
            previous_x0, x0 = x0, solver.predict_x0(s, x, p.eps)
            x = solver.step(s, x, p.eps, noise, previous_x0)
        if not torch.isfinite(x).all():
            bad = samples[int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])]
            raise UserError(f"the network gave a value that is not finite for sample {bad} at timestep {timestep}")
        yield Step(s, timestep, samples, x, x0, p.exit_layer, p.uncertainty, p.deviation)


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
) -> Iterator[Step]:
    """Sample images; yields a `Step` per denoising step, batch after batch.

    The noise of sample k at step s depends on (seed, k, s) only. `parts` replaces the batches by
    given ranges of sample numbers. Raises UserError for settings that make no sense.
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
    if model.backbone.num_classes:
        raise UserError("this model is class-conditional; only unconditional models can be sampled so far")
    chosen = make_policy(policy)
    chosen.check(model)
    if isinstance(solver, str):
        solver = make_solver(solver, schedule or Schedule(), steps, spacing, eta)
    if parts is None:
        parts = batches(num_samples, batch_size, first_sample)
    return _sample(model, solver, chosen, parts, seed, record, deviations)


def _sample(
    model: EarlyExitModel,
    solver: Solver,
    policy: ExitPolicy,
    parts: Sequence[range],
    seed: int,
    record: Record,
    deviations: bool,
) -> Iterator[Step]:
    for part in parts:
        yield from denoise(model, solver, policy, part, seed, record, deviations)
