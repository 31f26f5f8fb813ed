"""Exit layers to replay, so that a benchmark does not depend on the weights."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.errors import UserError
from deediff.traces.reader import read_trace

TIMESTEPS = 1000  # rows of a published array


@dataclass(frozen=True)
class Profile:
    """Exit layers of a real run."""

    name: str
    timesteps: NDArray[np.int64]  # (T,) diffusion t
    layers: NDArray[np.int8]  # (samples, T)

    def at(self, timesteps: list[int], samples: int) -> Tensor:
        """(samples, steps) int64 at the nearest recorded timesteps; samples repeat if the run has too few."""
        nearest = np.abs(self.timesteps - np.array(timesteps)[:, None]).argmin(axis=1)
        return torch.from_numpy(self.layers[np.arange(samples) % len(self.layers)][:, nearest].astype(np.int64))


def read_profile(text: str, num_blocks: int) -> Profile:
    """FILE.npz[:NAME], an integer array (1000, samples) with row 0 for t = 0; or a trace's folder or URL.

    Raises UserError when the profile does not exist, or exits at a layer beyond `num_blocks`.
    """
    if match := re.fullmatch(r"(.+\.npz)(?::(.*))?", text):
        name, layers = _read_array(match[1], match[2])
        profile = Profile(name, np.arange(TIMESTEPS), layers.T)
    else:
        trace = read_trace(text)
        profile = Profile(trace.path.name, np.array(trace.timesteps), trace.exit_layers())
    lowest, highest = int(profile.layers.min()), int(profile.layers.max())
    if lowest < 0 or highest > num_blocks:
        raise UserError(
            f"{text} exits at layers {lowest} … {highest}, but this model has 0 … {num_blocks}: "
            "choose another profile or a deeper model"
        )
    return profile


def _read_array(path: str, name: str | None) -> tuple[str, NDArray[np.int8]]:
    """The array of this name, by default the only one of the file; returns name and array."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read as an .npz of exit layers ({reason})") from None
    if name is None and len(arrays) == 1:
        name = next(iter(arrays))
    if name is None or name not in arrays:
        problem = "does not hold exactly one array" if name is None else f"holds no array {name!r}"
        raise UserError(f"{path} {problem}: use {path}:NAME with one of {', '.join(arrays)}")
    layers = arrays[name]
    if layers.dtype.kind not in "iu" or layers.ndim != 2 or len(layers) != TIMESTEPS or not layers.size:
        found, expected = f"{layers.dtype} of shape {layers.shape}", f"integers of shape ({TIMESTEPS}, samples)"
        raise UserError(f"{path}: {name} is {found}, expected {expected}")
    return name, layers


def independent_exits(samples: int, steps: int, blocks: int, layer_ratio: float, seed: int = 0) -> Tensor:
    """(samples, steps) exit layers drawn independently over 0 … N, with the given mean (≥ 0.5) / N."""
    rng = torch.Generator().manual_seed(seed)
    full = torch.rand(samples, steps, generator=rng) < 2 * layer_ratio - 1
    return torch.where(full, blocks, torch.randint(0, blocks + 1, (samples, steps), generator=rng))


def bimodal_exits(samples: int, steps: int, blocks: int, seed: int = 0) -> Tensor:
    """(samples, steps) exit layers like the published runs: 1 or 2 in early steps, N in late ones, mixed in between."""
    rng = torch.Generator().manual_seed(seed)
    early = torch.linspace(1.35, -0.65, steps).clamp(0, 1)  # probability of an early exit, over the steps
    exits = torch.rand(samples, steps, generator=rng) < early
    return torch.where(exits, torch.randint(1, 3, (samples, steps), generator=rng), blocks)
