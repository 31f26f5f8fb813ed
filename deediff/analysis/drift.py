"""Measure along full trajectories how predictions and inputs change from step to step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.calibration.drift import DriftTable, fit_drift
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from deediff.sampling.condition import make_condition
from deediff.sampling.sampler import Step, prepare_sampling
from deediff.settings import SamplingSettings

DRIFT_SAMPLES, DRIFT_STEPS = 64, 50


def measure_drift(
    model: EarlyExitModel,
    schedule: Schedule,
    settings: SamplingSettings | None = None,  # trajectories; default: 64 samples in 50 steps of DDIM
    on_step: Callable[[Step], None] | None = None,
) -> DriftTable:
    """g(t) and TeaCache's polynomial, from one batch of full trajectories under these settings."""
    settings = settings or SamplingSettings(steps=DRIFT_STEPS, num_samples=DRIFT_SAMPLES)
    job = prepare_sampling(model, replace(settings, policy="never", readout="head"), schedule)
    solver, samples = job.solver, range(settings.num_samples)
    device = next(model.parameters()).device
    condition = make_condition(model, samples, settings.classes, settings.guidance)
    labels = None if condition is None else condition.labels
    x, before = sample_noise(settings.seed, samples, 0, model.image_shape).to(device), None
    rows = []
    for step in job.steps([samples]):
        with torch.inference_mode():
            t = torch.full((len(samples),), step.timestep, device=device)
            now = solver.to_epsilon(step.step, x, step.x0), model.backbone.embed(x, t, labels)
            if before is not None:
                rows.append([_rms(now[0] - before[0]), _relative(now[0], before[0]), _relative(now[1], before[1])])
        x, before = step.x, now
        if on_step is not None:
            on_step(step)
    change, output, inputs = np.moveaxis(np.array(rows), 1, 0)
    log_snr = np.array([solver.log_snr(s) for s in range(len(solver.timesteps))])
    info = {"samples": len(samples), "solver": job.settings.solver, "seed": settings.seed}
    return fit_drift(solver.timesteps, log_snr, change, output, inputs, info)


def _rms(difference: Tensor) -> NDArray[np.float64]:
    return difference.flatten(1).square().mean(dim=1).sqrt().double().cpu().numpy()


def _relative(now: Tensor, before: Tensor) -> NDArray[np.float64]:
    difference, size = (now - before).flatten(1).abs().mean(dim=1), before.flatten(1).abs().mean(dim=1)
    return (difference / size).double().cpu().numpy()
