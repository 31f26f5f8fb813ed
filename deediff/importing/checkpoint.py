"""Checkpoints of other code (U-ViT, AdaDiff, DuoDiff) as runs of status `imported`."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from deediff.checkpoints import save_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.importing.pickled import load_pickled
from deediff.importing.run_files import check_new_run, write_imported_run
from deediff.models.official import read_state

CLAMPED = "its attention UEMs have no final sigmoid: u is clamped to [0, 1], and traces count the clamped values"


def import_checkpoint(
    path: Path,  # a .pth
    out: Path,  # the new run folder
    layout: str = "uvit",  # or another of official.LAYOUTS
    num_heads: int | None = None,
    normalize_timesteps: bool = False,
    images_seen: int = 0,  # training images of these weights, recorded in run.json
) -> Path:
    """Write a run of status `imported` with one checkpoint. Raises UserError when the tensors do not fit."""
    state = load_pickled(path)
    if isinstance(state, dict):
        state = state.get("model_state_dict", state)  # the format of the DuoDiff repository's trainer
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UserError(f"{path} holds no state dict (names → tensors)")
    if images_seen < 0:
        raise UserError(f"images seen is {images_seen}, expected 0 or more")
    try:
        model = read_state(state, layout, num_heads, normalize_timesteps)
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{path} is not a checkpoint of layout {layout}: it has no {error}") from None
    except (ValueError, RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} does not fit a network of layout {layout} ({reason})") from None
    check_new_run(out)
    save_checkpoint(out / "checkpoints" / "0.safetensors", model, Schedule(), 0, images_seen, source=path.name)
    parts = {"backbone": model.backbone, "uem": model.uem, "heads": model.heads}
    counts = {name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()}
    notes = [CLAMPED] if model.uem is not None and model.uem.clamps else []
    write_imported_run(out, parameters=counts, images_seen=images_seen, source=path.name, notes=notes)
    return out
