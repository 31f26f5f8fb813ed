"""Checkpoints: weights as safetensors, with a JSON file of the same name that holds the model's configuration."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import FORMAT_VERSION, read_json, write_json
from deediff.models import EarlyExitModel, build_backbone
from deediff.runs import numbered_checkpoints
from deediff.storage import write_atomically


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as a hex string."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_checkpoint(
    path: Path,  # …/<step>.safetensors
    model: EarlyExitModel,
    schedule: Schedule,
    step: int,  # optimiser steps
    images_seen: int,  # training images, including those of the initial checkpoint
    dtype: torch.dtype | None = None,  # precision on disk; None: unchanged
    base: Path | None = None,  # another checkpoint: what it holds, too, is left out, and read from it
    **extra: Any,  # more JSON fields
) -> Path:
    """Write the weights, then the JSON file. Returns `path`. Raises UserError when `base` is not readable."""
    tensors = {
        name: value.detach().to("cpu", dtype or value.dtype).contiguous() for name, value in model.state_dict().items()
    }
    if base is not None:
        others = _read_weights(base)
        tensors = {
            name: value
            for name, value in tensors.items()
            if name not in others or not torch.equal(others[name].to(value.dtype), value)
        }
        extra["base"] = {"path": os.path.relpath(base, path.parent), "sha256": file_sha256(base)}
    write_atomically(path, save(tensors))
    write_json(
        path.with_suffix(".json"),
        {
            "format_version": FORMAT_VERSION,
            "backbone": model.backbone.config(),
            "uem": model.uem.config() if model.uem is not None else None,
            "heads": model.head_kind,
            "head": model.head,
            "exit_target": model.exit_target,
            "schedule": asdict(schedule),
            "prediction": model.prediction,
            "null_label": model.null_label,
            **({"class_names": list(model.class_names)} if model.class_names else {}),
            "step": step,
            "images_seen": images_seen,
            "sha256": file_sha256(path),
            **extra,
        },
    )
    return path


def find_checkpoint(path: Path) -> Path:
    """The path itself if it is a checkpoint file, or the newest checkpoint of a run folder.

    Raises UserError when there is none.
    """
    path = Path(path)
    if path.is_dir():
        found = numbered_checkpoints(path)
        if not found:
            raise UserError(
                f"no checkpoint in {path / 'checkpoints'}: train the run first, or pass a .safetensors file"
            )
        return found[-1]
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist: pass a run folder or a .safetensors file")
    if path.suffix != ".safetensors":
        raise UserError(f"{path} is not a .safetensors checkpoint: convert other formats with 'deediff import'")
    return path


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> tuple[EarlyExitModel, dict[str, Any]]:
    """The model in eval mode and float32, and the content of the checkpoint's JSON file.

    Raises UserError when a file is missing or corrupt, the weights are not those that were saved, not finite, or do
    not fit the configuration.
    """
    path = find_checkpoint(path)
    info = read_json(path.with_suffix(".json"))
    if info.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path.with_suffix('.json')}: format_version is {info.get('format_version')}, expected {FORMAT_VERSION}"
        )
    required = ("backbone", "uem", "schedule", "prediction", "sha256", "images_seen")
    if missing := [key for key in required if key not in info]:
        raise UserError(f"{path.with_suffix('.json')} lacks {', '.join(missing)}: it was not written by deediff")
    weights = _read_weights(path, info["sha256"])
    if (base := info.get("base")) is not None:
        weights = _read_base(path, base) | weights
    try:
        schedule = Schedule(**info["schedule"])
        model = EarlyExitModel(build_backbone(info["backbone"]), prediction=info["prediction"])
        if info["uem"] is not None:
            head = info.get("head") or "linear"
            model.add_exits(info["uem"], info.get("heads") or "each", schedule.num_timesteps, head=head)
        if base is not None:  # which may have other exits
            weights = {name: value for name, value in weights.items() if name in model.state_dict()}
        model.load_state_dict(weights)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not fit the model its JSON describes ({reason})") from None
    model.origin, model.null_label = (path, info["sha256"]), bool(info.get("null_label"))
    model.class_names = tuple(map(str, info.get("class_names") or ()))
    model.exit_target, model.schedule = info.get("exit_target") or "noise", schedule
    return model.to(device).eval().requires_grad_(False), info


def _read_base(path: Path, base: Any) -> dict[str, torch.Tensor]:
    """The tensors of the checkpoint that another one is based on."""
    try:
        file, sha256 = path.parent / base["path"], str(base["sha256"])
    except (KeyError, TypeError):
        raise UserError(f"{path.with_suffix('.json')}: base is {base!r}, expected a path and a sha256") from None
    if not file.is_file():
        raise UserError(f"{path} holds only what differs from {file}, which is missing: copy that checkpoint there")
    return _read_weights(file, sha256)


def _read_weights(path: Path, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a file, in float32.

    Raises UserError when they are not finite or not real, or the file is not the one of this SHA-256.
    """
    try:
        data = path.read_bytes()
        tensors = load(data)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a readable checkpoint ({error}): it is corrupt or cut short; copy it again"
        ) from None
    if sha256 not in (None, found := hashlib.sha256(data).hexdigest()):
        raise UserError(
            f"{path} is not the file that was saved (SHA-256 {found[:12]}, expected {str(sha256)[:12]}): copy it and "
            "its JSON file again"
        )
    if strange := [name for name, value in tensors.items() if value.is_complex() or not value.isfinite().all()]:
        raise UserError(f"{path}: {strange[0]} holds values that are not finite real numbers: train or copy it again")
    return {name: value.float() for name, value in tensors.items()}
