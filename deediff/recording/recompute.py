"""Recompute one sample of a trace from its seed.

The noise depends on (seed, sample, step) only, so a trace need not store intermediate images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.sampling.planned import plan_content
from deediff.sampling.sampler import Sampling, Step, prepare_sampling
from deediff.settings import Record
from deediff.traces.reader import Trace


def recompute(
    trace: Trace,
    number: int,  # of the sample in the trace
    model: EarlyExitModel,  # loaded from the trace's checkpoint
    schedule: Schedule,  # of the model's training
    policy: str | None = None,  # in place of the trace's policy and plan, for example "never"
    record: Record = "exit",  # "full": u at every layer
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Step]:
    """The steps of this sample, as batches of one: x, predicted x_0, exit layer and u at every timestep.

    Exits are those of the trace unless u lies within float rounding of a threshold, images within ±2
    grey levels, on the same kind of device. A policy that decides for the whole batch gets it.
    Raises UserError when the trace lacks this sample, or as `repeated_sampling`.
    """
    job = repeated_sampling(trace, model, schedule, policy, record)
    return steps_of_sample(job, number, cancelled)


def repeated_sampling(
    trace: Trace,
    model: EarlyExitModel,  # loaded from the trace's checkpoint
    schedule: Schedule,  # of the model's training
    policy: str | None = None,  # in place of the trace's policy and plan
    record: Record = "exit",
) -> Sampling:
    """The sampling job of a trace, prepared again.

    Raises UserError when the trace cannot be repeated: it was imported, other weights or another
    calibration were given, or a file that its policy names has changed.
    """
    meta, settings = trace.meta, trace.meta.settings
    if settings is None:
        raise UserError(f"{trace.path} was imported: without its model and seed no sample of it can be recomputed")
    if model.origin is None or model.origin[1] != settings.checkpoint_sha256:
        raise UserError(
            f"{trace.path} was sampled from other weights ({settings.checkpoint}, "
            f"SHA-256 {str(settings.checkpoint_sha256)[:12]}…): put that checkpoint back into the run"
        )
    again = replace(settings, record=record, deviations=False, dtype="auto")
    if policy is not None:
        again = replace(again, policy=policy, plan=None)
    job = prepare_sampling(model, again, schedule)
    if job.recalibration_sha256 != meta.recalibration_sha256:
        raise UserError(f"{trace.path} was sampled with another calibration than the one beside its checkpoint")
    if policy is None and job.policy.content != meta.policy_content:
        raise UserError(f"the file of policy {job.policy.spec} has changed since {trace.path} was sampled: put it back")
    if policy is None and plan_content(job.planned) != dict(meta.plan_content or {}):
        raise UserError(f"a file that the plan of {trace.path} names has changed since it was sampled: put it back")
    return job


def steps_of_sample(job: Sampling, number: int, cancelled: Callable[[], bool] | None = None) -> Iterator[Step]:
    """The steps of one sample of a job, as batches of one; a policy that decides for the whole batch gets it.

    Raises UserError when the job has no such sample.
    """
    count, size = job.settings.num_samples, job.settings.batch_size
    if not 0 <= number < count:
        raise UserError(f"the trace has no sample {number}, expected 0 … {count - 1}")
    batch, first = range(number, number + 1), number
    if job.policy.decides_for_batch:
        first = number // size * size
        batch = range(first, min(first + size, count))
    return (_only(step, number - first) for step in job.steps([batch], cancelled))


def _only(step: Step, row: int) -> Step:
    """One sample of a batch."""
    here = slice(row, row + 1)
    return replace(
        step,
        samples=step.samples[here],
        x=step.x[here],
        x0=step.x0[here],
        exit_layer=step.exit_layer[here],
        uncertainty=step.uncertainty[here],
        signal=None if step.signal is None else step.signal[here],
        since_full=step.since_full[here],
    )
