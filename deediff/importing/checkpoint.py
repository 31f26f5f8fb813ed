"""Checkpoints of other code (U-ViT, AdaDiff, DuoDiff) as runs of status `imported`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deediff.checkpoints import save_checkpoint
from deediff.diffusion.schedule import STABLE_DIFFUSION, Schedule
from deediff.errors import UserError
from deediff.importing.files import weights_file
from deediff.importing.pickled import load_pickled
from deediff.importing.run_files import check_new_run, write_imported_run
from deediff.importing.unwrap import unwrap_state
from deediff.models import EarlyExitModel
from deediff.models.official import read_state

CLAMPED = "its attention UEMs have no final sigmoid: u is clamped to [0, 1], and traces count the clamped values"
SCHEDULES = {"linear": Schedule(), "stable-diffusion": STABLE_DIFFUSION}
NULL_LABELS = {0: False, 1: False, 1000: False, 1001: True}  # by the number of labels: those of ImageNet are known


@dataclass(frozen=True)
class Untold:
    """What a file of weights does not tell and changes its images."""

    num_heads: int | None = None  # attention heads; None: those of the preset of this width and depth
    normalize_timesteps: bool = False  # the network was trained on t/1000
    schedule: str = "auto"  # of SCHEDULES; auto: by layout and channels
    null_label: bool | None = None  # whether the last label means "no class"; None: known for ImageNet's labels


def import_checkpoint(
    path: Path,  # a file, or the folder N.ckpt of an official training
    out: Path,  # the new run folder
    layout: str = "uvit",  # or another of official.LAYOUTS, or auto
    num_heads: int | None = None,
    normalize_timesteps: bool = False,
    images_seen: int = 0,  # training images of these weights, recorded in run.json
    untold: Untold | None = None,  # in place of num_heads and normalize_timesteps
) -> Path:
    """Write a run of status `imported` with one checkpoint. Raises UserError when the tensors do not fit."""
    untold = untold or Untold(num_heads, normalize_timesteps)
    if images_seen < 0:
        raise UserError(f"images seen is {images_seen}, expected 0 or more")
    if untold.num_heads is not None and untold.num_heads < 1:
        raise UserError(f"number of attention heads is {untold.num_heads}, expected 1 or more: leave --num-heads out")
    file = weights_file(path)
    state, layout, notes = unwrap_state(load_pickled(file), file, layout)
    try:
        model = read_state(state, layout, untold.num_heads, untold.normalize_timesteps)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    except KeyError as error:
        raise UserError(f"{file} is not a checkpoint of layout {layout}: it has no {error}") from None
    except (ValueError, RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file} does not fit a network of layout {layout} ({reason})") from None
    schedule, told = _schedule(file, layout, model, untold.schedule)
    known = model.null_label if layout == "dit" else None  # DiT's code adds a label for "no class" to every table
    model.null_label = _null_label(file, model, known if untold.null_label is None else untold.null_label)
    clamped = [CLAMPED] if model.uem is not None and model.uem.clamps else []
    notes = [*clamped, *notes, told]
    check_new_run(out)
    save_checkpoint(out / "checkpoints" / "0.safetensors", model, schedule, 0, images_seen, source=path.name)
    parts = {"backbone": model.backbone, "uem": model.uem, "heads": model.heads}
    counts = {name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()}
    write_imported_run(out, parameters=counts, images_seen=images_seen, source=path.name, notes=notes)
    return out


def _schedule(file: Path, layout: str, model: EarlyExitModel, name: str) -> tuple[Schedule, str]:
    """The noise schedule, and a note; that of official models: Stable Diffusion's for a U-ViT of latents, else linear.

    Raises UserError for other channels.
    """
    channels = model.image_shape[0]
    if name == "auto":
        if channels not in (1, 3, 4):
            raise UserError(
                f"{file} has {channels} channels, and tensors do not show the noise schedule: give it with --schedule "
                f"{' or '.join(SCHEDULES)}"
            )
        name = "stable-diffusion" if channels == 4 and layout != "dit" else "linear"
    if name not in SCHEDULES:
        raise UserError(f"unknown schedule {name!r}, expected auto, {', '.join(SCHEDULES)}")
    return SCHEDULES[name], f"noise schedule {name}: ᾱ = {SCHEDULES[name].alphas_bar[500]:.3f} at t = 500"


def _null_label(file: Path, model: EarlyExitModel, given: bool | None) -> bool:
    """Whether the last label means "no class". Raises UserError where neither the caller nor ImageNet's labels tell."""
    labels = model.backbone.num_classes
    if given and labels < 2:
        raise UserError(f"{file} has {labels} labels, so none means no class: leave --null-label out")
    if given is None and labels not in NULL_LABELS:
        raise UserError(
            f"{file} has {labels} labels, and tensors do not show whether the last one means no class: give "
            "--null-label or --no-null-label"
        )
    return NULL_LABELS[labels] if given is None else given
