"""Exit layers of published runs as traces of a run of status `imported`."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.cost.components import model_cost
from deediff.errors import UserError
from deediff.importing.pickled import load_pickled
from deediff.importing.run_files import check_new_run, write_imported_run
from deediff.json_files import write_json
from deediff.models import PRESETS, EarlyExitModel, make_backbone
from deediff.recording.parts import finish, write_part
from deediff.traces import schema

PART_SIZE = 4096  # samples per part of an imported trace


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
    check_new_run(out)
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
    write_imported_run(out, source=path.name, model=preset)
    return out
