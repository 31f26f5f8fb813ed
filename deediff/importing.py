"""Checkpoints and exit layers of others' code → run folders of ours."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.analysis.cost import model_cost
from deediff.checkpoints import save_checkpoint, write_json
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import PRESETS, EarlyExitModel, make_backbone
from deediff.models.official import read_state
from deediff.runs import FORMAT_VERSION
from deediff.traces import schema
from deediff.traces.parts import finish, write_part

CLAMPED = "its attention UEMs end in no sigmoid, so what leaves [0, 1] is cut to it; traces count how often"
PART_SIZE = 4096  # samples per part of an imported trace
PLAIN: list[Any] = [  # classes of plain data, and the name under which a file may ask for each
    (argparse.Namespace, "argparse.Namespace"),
    *(
        (plain, f"{module}.{name}")
        for plain in (PurePosixPath, PureWindowsPath)
        for module in ("pathlib", "pathlib._local")  # the latter in Python 3.13
        for name in (plain.__name__, plain.__name__.removeprefix("Pure"))
    ),
]


def load_pickled(path: Path) -> Any:
    """`torch.load` that executes nothing. Raises UserError when the file is missing, corrupt or holds code.

    Command lines and paths, which many trainings keep beside their weights, are plain data too: paths of any system
    and Python come back as pure paths, which name a file and cannot touch it.
    """
    try:
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise UserError(
            f"{path} is not a file of plain tensors ({reason}): it is corrupt, or holds code and was not run"
        ) from None


def import_checkpoint(
    path: Path,  # a .pth
    out: Path,  # run folder to write
    layout: str = "uvit",  # or another of official.LAYOUTS
    num_heads: int | None = None,
    normalize_timesteps: bool = False,
    images_seen: int = 0,  # training images behind these weights, for the record
) -> Path:
    """Write a run of status `imported` with one checkpoint. Raises UserError when the tensors do not fit."""
    state = load_pickled(path)
    if isinstance(state, dict):
        state = state.get("model_state_dict", state)  # what a training of the DuoDiff repository saves
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
    _new_run(out)
    save_checkpoint(out / "checkpoints" / "0.safetensors", model, Schedule(), 0, images_seen, source=path.name)
    parts = {"backbone": model.backbone, "uem": model.uem, "heads": model.heads}
    counts = {name: sum(p.numel() for p in part.parameters()) if part else 0 for name, part in parts.items()}
    notes = [CLAMPED] if model.uem is not None and model.uem.clamps else []
    _write_run(out, parameters=counts, images_seen=images_seen, source=path.name, notes=notes)
    return out


def read_exit_layers(path: Path) -> dict[str, NDArray[np.int8]]:
    """Name → (timesteps, samples), index 0 is t = 0, value i = i blocks were run.

    A folder of .pt files (each (timesteps, some samples)) is one set, an .npz one per array.
    """
    if path.is_dir():
        files = sorted(path.glob("*.pt"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
        if not files:
            raise UserError(f"no .pt files in {path}: expected exit layers as the DuoDiff repository stores them")
        tensors = [load_pickled(file) for file in files]
        shapes = {tuple(t.shape[:1]) if isinstance(t, Tensor) and t.ndim == 2 else None for t in tensors}
        if None in shapes or len(shapes) > 1:
            raise UserError(f"the .pt files in {path} are not tensors (timesteps, samples) of equally many timesteps")
        arrays = {path.name: torch.cat(tensors, dim=1).numpy()}
    else:
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is neither a folder nor a readable .npz of exit layers ({error})") from None
    return arrays


def import_exit_layers(
    path: Path,  # a folder of .pt files or an .npz
    out: Path,  # run folder to write
    preset: str = "uvit_small",  # the model that was sampled: decides the GFLOPs
    uem: str = "auto",  # mlp, attention, or auto: the first word of the set's name
) -> Path:
    """Write a run of status `imported`, one trace per set: no images, no u, DDPM over all timesteps.

    Raises UserError when shapes or values are not exit layers of that model.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown model {preset!r}, expected one of: {', '.join(PRESETS)}")
    num_blocks = PRESETS[preset].num_blocks
    sets = read_exit_layers(path)
    for name, layers in sets.items():
        if not isinstance(layers, np.ndarray):
            raise UserError(f"{path}: {name} is not an array of exit layers")
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise UserError(f"{path}: a set is called {name!r}, expected letters, digits and . _ + - only")
        if layers.dtype.kind not in "iuf" or layers.ndim != 2 or layers.size == 0 or (layers != np.round(layers)).any():
            raise UserError(f"{path}: {name} has shape {layers.shape}, expected whole numbers (timesteps, samples)")
        if layers.min() < 0 or layers.max() > num_blocks:
            raise UserError(
                f"{path}: {name} holds {layers.min():g} … {layers.max():g}, expected exit layers 0 … {num_blocks}"
            )
    _new_run(out)
    for name, layers in sets.items():
        kind = name.split("_")[0] if uem == "auto" else uem
        if kind not in ("mlp", "attention"):
            raise UserError(f"cannot tell the UEM of {name!r}: say --uem mlp or --uem attention")
        steps, samples = layers.shape
        model = EarlyExitModel(make_backbone(PRESETS[preset])).add_exits({"name": kind, "scope": "layer"})
        folder = out / "traces" / name
        parts = [range(a, min(a + PART_SIZE, samples)) for a in range(0, samples, PART_SIZE)]
        timesteps = list(range(steps - 1, -1, -1))
        write_json(
            folder / "trace.json",
            {
                "format_version": schema.FORMAT_VERSION,
                "complete": False,
                "imported": True,
                "policy": "imported",
                "solver": "ddpm",
                "steps": steps,
                "num_samples": samples,
                "batch_size": PART_SIZE,
                "record": "exit",
                "num_blocks": num_blocks,
                "timesteps": timesteps,
                "has_uncertainty": False,
                "policy_needs_uncertainty": True,
                "uem": kind,
                "cost": model_cost(model).to_json(),
                "source": path.name,
            },
        )
        in_order = np.ascontiguousarray(layers[::-1].T).astype(np.int8)  # (samples, steps), t = T−1 first
        for part, numbers in enumerate(parts):
            block = in_order[numbers.start : numbers.stop]
            write_part(folder, part, numbers, timesteps, block, None, None, None, num_blocks)
        finish(folder, len(parts))
    _write_run(out, source=path.name, model=preset)
    return out


def _new_run(out: Path) -> None:
    if (out / "run.json").exists():
        raise UserError(f"{out} already holds a run: choose another --out")


def _write_run(out: Path, **fields: Any) -> None:
    write_json(out / "run.json", {"format_version": FORMAT_VERSION, "status": "imported", **fields})
