"""Maps of u over the image for chosen samples of a trace, recomputed from the seed.

Sampling does not compute maps, so its decisions and its cost are the same with and without them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from deediff.checkpoints import load_checkpoint
from deediff.devices import autocast, choose_device
from deediff.diffusion.noise import sample_noise
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.recording.recompute import recompute
from deediff.sampling.condition import make_condition
from deediff.sampling.sampler import Step
from deediff.storage import write_atomically
from deediff.traces.reader import Trace
from deediff.traces.schema import FORMAT_VERSION, maps_file


def check_samples(wanted: Collection[int], num_samples: int) -> None:
    """Raises UserError unless all of these are samples of a trace."""
    wrong = next((number for number in wanted if not 0 <= number < num_samples), None)  # a range may be huge
    if wrong is not None:
        raise UserError(f"the trace has no sample {wrong} to map, expected 0 … {num_samples - 1}")


def check_maps(model: EarlyExitModel, has_uncertainty: bool) -> None:
    """Raises UserError when a trace of this model, or this trace, has no maps of u."""
    if model.uem is None or not model.uem.by_token:
        raise UserError("maps need UEMs that evaluate each token (mlp); this model's give one value per image")
    if not has_uncertainty:
        raise UserError("maps need a policy that evaluates the UEMs, for example threshold:0.1, or --record full")


def checkpoint_of(trace: Trace) -> Path:
    """The checkpoint in the trace's run from which it was sampled. Raises UserError when it is missing."""
    name = str(trace.meta.settings and trace.meta.settings.checkpoint)
    file = Path(str(trace.path)).parent.parent / "checkpoints" / name
    if not name.endswith(".safetensors") or not file.is_file():
        raise UserError(
            f"{trace.path} is not in the run from which it was sampled, or {name} is missing there: "
            "pass the checkpoint with --checkpoint"
        )
    return file


def compute_maps(
    trace: Trace,
    number: int,  # of the sample in the trace
    model: EarlyExitModel,  # loaded from the trace's checkpoint, not recalibrated
    schedule: Schedule,  # of the model's training
    on_step: Callable[[Step], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> NDArray[np.float32] | None:
    """(S, N, h, w): see `EarlyExitModel.uncertainty_maps`; NaN where no UEM was evaluated. None when cancelled.

    Under guidance the elementwise maximum over the two halves. As exact as `recompute`; costs one more
    evaluation of the network per step. Raises UserError when the trace can have no maps.
    """
    settings = trace.meta.settings
    check_maps(model, trace.meta.has_uncertainty)
    assert settings is not None, "a trace with u was sampled here"
    device, here = next(model.parameters()).device, range(number, number + 1)
    found: list[NDArray[np.float32]] = []
    condition = make_condition(model, here, settings.classes, settings.guidance)
    labels = None if condition is None else condition.rows()
    copies = 1 if labels is None else len(labels)
    x = sample_noise(settings.seed, here, 0, model.image_shape).to(device)
    for step in recompute(trace, number, model, schedule, record=trace.meta.record, cancelled=cancelled):
        t = torch.full((copies,), step.timestep, device=device)
        with torch.inference_mode(), autocast(device):
            maps = model.uncertainty_maps(x.expand(copies, -1, -1, -1), t, labels).amax(dim=1).cpu()  # (N, h, w)
        queried = ~step.uncertainty[0].isnan().numpy()
        found.append(np.where(queried[:, None, None], maps.numpy(), np.float32(np.nan)))
        x = step.x
        if on_step is not None:
            on_step(step)
    return np.stack(found) if len(found) == len(trace.timesteps) else None


def write_maps(
    trace: Trace,
    samples: Collection[int],
    checkpoint: Path,  # from which the trace was sampled
    device: str = "auto",
    on_step: Callable[[Step], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Write the maps of these samples into the trace's folder, in float16, unless they exist.

    Raises UserError when the trace can have no maps or lacks a sample, or the folder cannot be written.
    """
    check_samples(samples, trace.meta.num_samples)
    missing = [k for k in samples if not maps_file(trace.path, k).exists()]
    if not missing:
        return
    model, info = load_checkpoint(checkpoint, choose_device(device))
    for number in missing:
        maps = compute_maps(trace, number, model, Schedule(**info["schedule"]), on_step, cancelled)
        if maps is None:
            return
        buffer = io.BytesIO()
        np.savez_compressed(buffer, format_version=FORMAT_VERSION, maps=maps.astype(np.float16))
        try:
            write_atomically(maps_file(trace.path, number), buffer.getvalue())
        except OSError as error:
            raise UserError(f"{trace.path} cannot be written any more ({error.strerror}): make room") from None
