"""Exit layers of published runs as traces of a run of status `imported`."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

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
from deediff.recording.finish import finish
from deediff.recording.parts import Part, write_part
from deediff.settings import PolicySpec
from deediff.traces.meta import TraceMeta

PART_SIZE = 4096  # samples per part of an imported trace


def read_exit_layers(path: Path) -> dict[str, NDArray[np.int8]]:
    """Set name → exit layers (timesteps, samples); row 0 is t = 0, and value i means that i blocks were run.

    A folder of .pt files, each (timesteps, some of the samples), is one set; an .npz has one set per array.
    """
    if path.is_dir():
        files = sorted(path.glob("*.pt"), key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
        if not files:
            raise UserError(f"no .pt files in {path}: expected exit layers as the DuoDiff repository stores them")
        tensors = [load_pickled(file) for file in files]
        shapes = {tuple(t.shape[:1]) if isinstance(t, Tensor) and t.ndim == 2 else None for t in tensors}
        if None in shapes or len(shapes) > 1:
            raise UserError(f"the .pt files in {path} are not tensors (timesteps, samples) of equal timesteps")
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
    out: Path,  # the new run folder
    preset: str = "uvit_small",  # the sampled model, which determines the GFLOPs
    uem: str = "auto",  # "mlp", "attention", or "auto": the first word of the set's name
) -> Path:
    """Write a run of status `imported` with one trace per set: DDPM over all timesteps, without images or u.

    Raises UserError when shapes or values are not exit layers of that model.
    """
    if preset not in PRESETS:
        raise UserError(f"unknown model {preset!r}, expected one of: {', '.join(PRESETS)}")
    sets = read_exit_layers(path)
    uems = {name: name.split("_")[0] if uem == "auto" else uem for name in sets}
    for name, layers in sets.items():
        _check_set(path, name, layers, PRESETS[preset].num_blocks)
        if uems[name] not in ("mlp", "attention"):
            raise UserError(f"the UEM of {name!r} is unknown: pass --uem mlp or --uem attention")
    check_new_run(out)
    for name, layers in sets.items():
        model = EarlyExitModel(make_backbone(PRESETS[preset])).add_exits({"name": uems[name], "scope": "layer"})
        _write_trace(out / "traces" / name, layers, model, uem=uems[name], source=path.name)
    write_imported_run(out, source=path.name, model=preset)
    return out


def _check_set(path: Path, name: str, layers: object, num_blocks: int) -> None:
    """Raises UserError unless `layers` are exit layers (timesteps, samples) and `name` is a folder name."""
    if not isinstance(layers, np.ndarray):
        raise UserError(f"{path}: {name} is not an array of exit layers")
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise UserError(f"{path}: a set is called {name!r}, expected letters, digits and . _ + - only")
    if layers.dtype.kind not in "iuf" or layers.ndim != 2 or layers.size == 0 or (layers != np.round(layers)).any():
        raise UserError(f"{path}: {name} has shape {layers.shape}, expected whole numbers (timesteps, samples)")
    if layers.min() < 0 or layers.max() > num_blocks:
        found = f"{layers.min():g} … {layers.max():g}"
        raise UserError(f"{path}: {name} holds {found}, expected exit layers 0 … {num_blocks}")


def _write_trace(folder: Path, layers: NDArray[Any], model: EarlyExitModel, uem: str, source: str) -> None:
    """Write exit layers (timesteps, samples) as a trace."""
    steps, samples = layers.shape
    timesteps = list(range(steps - 1, -1, -1))
    meta = TraceMeta(
        policy=PolicySpec("imported"),
        num_samples=samples,
        num_blocks=model.num_blocks,
        timesteps=timesteps,
        record="exit",
        has_uncertainty=False,
        has_deviations=False,
        policy_needs_uncertainty=True,
        cost=model_cost(model),
        solver="ddpm",
        batch_size=PART_SIZE,
        imported=True,
        uem=uem,
        source=source,
    )
    write_json(folder / "trace.json", meta.to_json())
    exit_layers = np.ascontiguousarray(layers[::-1].T).astype(np.int8)  # (samples, steps), t = T−1 first
    parts = [range(first, min(first + PART_SIZE, samples)) for first in range(0, samples, PART_SIZE)]
    for part, numbers in enumerate(parts):
        block = exit_layers[numbers.start : numbers.stop]
        write_part(folder, part, Part(numbers, timesteps, block, num_blocks=model.num_blocks))
    finish(folder, len(parts))
