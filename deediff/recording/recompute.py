"""One sample of a trace once more, from its seed: the noise contract makes its whole path exact.

So a trace need not keep the images in between: whoever wants to see them computes them again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

from deediff.calibration.recalibrated import recalibrate
from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import make_solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.registry import make_policy
from deediff.sampling.sampler import Record, Step, sample
from deediff.traces.reader import Trace


def recompute(
    trace: Trace,
    number: int,  # which sample of the trace
    model: EarlyExitModel,  # read from the checkpoint that the trace was sampled from
    schedule: Schedule,  # that it was trained with
    policy: str | None = None,  # another policy from the same noise, for example "never"
    record: Record = "exit",  # "full": u at every layer, as the trace may have it
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Step]:
    """The steps of this sample, as batches of one: x, predicted x_0, exit layer and u at every timestep.

    Exits are those of the trace unless u lies within float rounding of a threshold, images within ±2
    grey levels, on the same kind of device. A policy that decides for the whole batch gets it.
    Raises UserError when the trace cannot be repeated: it was imported, other weights or another
    calibration were given, or a file that its policy names has changed.
    """
    meta = trace.meta
    if meta.get("imported") or not meta.get("solver") or "seed" not in meta:
        raise UserError(f"{trace.path} was imported: without its model and seed no sample of it can be recomputed")
    if not 0 <= number < meta["num_samples"]:
        raise UserError(f"{trace.path} has no sample {number}, expected 0 … {meta['num_samples'] - 1}")
    if model.origin is None or model.origin[1] != meta.get("checkpoint_sha256"):
        raise UserError(
            f"{trace.path} was sampled from other weights ({meta.get('checkpoint')}, "
            f"SHA-256 {str(meta.get('checkpoint_sha256'))[:12]}…): put that checkpoint back into the run"
        )
    if meta.get("recalibration_sha256"):
        model = copy.deepcopy(model)  # recalibrating is done in place, and others may be using the model
        if recalibrate(model).sha256 != meta["recalibration_sha256"]:
            raise UserError(f"{trace.path} was sampled with another calibration than the one beside its checkpoint")
    solver = make_solver(
        meta["solver"], schedule, meta["steps"], meta.get("spacing", "trailing"), meta.get("eta") or 0.0
    )
    chosen = make_policy(policy or meta["policy"]).prepared(model, solver, meta.get("guidance"))
    if policy is None and chosen.content != meta.get("policy_content"):
        raise UserError(f"what policy {chosen.spec} refers to has changed since {trace.path} was sampled: put it back")
    batch, first = range(number, number + 1), number
    if chosen.decides_for_batch:
        first = number // meta["batch_size"] * meta["batch_size"]
        batch = range(first, min(first + meta["batch_size"], meta["num_samples"]))
    steps = sample(
        model, len(batch), chosen, solver, seed=meta["seed"], parts=[batch], record=record,
        classes=meta.get("classes"), guidance=meta.get("guidance"), cancelled=cancelled,
    )  # fmt: skip
    return (_only(step, number - first) for step in steps)


def _only(step: Step, row: int) -> Step:
    """One sample of a batch."""
    here = slice(row, row + 1)
    return replace(
        step, samples=step.samples[here], x=step.x[here], x0=step.x0[here],
        exit_layer=step.exit_layer[here], uncertainty=step.uncertainty[here],
    )  # fmt: skip
