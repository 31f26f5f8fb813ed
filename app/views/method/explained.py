"""One image at one timestep through every exit of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deediff.datasets import to_model_range
from deediff.diffusion.losses import uncertainty_map
from deediff.diffusion.prediction import training_target
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.traces.images import decode_png

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Explained:
    """N blocks; C, H, W of the image."""

    timestep: int
    alpha_bar: float  # ᾱ_t
    clean: Floats  # (C,H,W) x_0 in [−1, 1]
    noise: Floats  # (C,H,W) ε
    noisy: Floats  # (C,H,W) x_t, Eq. 1
    target: Floats  # (C,H,W) of the backbone: ε, or x_0 or v
    exit_target: Floats  # (C,H,W) of the exits: the same, or the full network's prediction
    predictions: Floats  # (N+1,C,H,W) g_0 … g_{N−1}, and the backbone's own; (1,C,H,W) without exits
    u: Floats  # (N,) Eq. 5; empty without exits
    error_maps: Floats  # (N+1,H,W) tanh|g_i − exit_target|, mean over channels; the mean of each is û of Eq. 6
    u_maps: Floats | None  # (N,h,w) u of each image token, where the UEM has one

    @property
    def errors(self) -> Floats:
        """(N+1,) û_i of Eq. 6, and the full network's."""
        return self.error_maps.mean(axis=(1, 2))

    def exit_layer(self, threshold: float) -> int:
        """The first layer with u_i ≤ τ; N when there is none."""
        certain = np.flatnonzero(self.u <= np.float32(threshold))
        return int(certain[0]) if len(certain) else len(self.u)


@torch.no_grad()
def explain(
    model: EarlyExitModel,
    schedule: Schedule,
    png: bytes,  # the image x_0
    timestep: int,
    seed: int,  # of the noise ε
    label: int = 0,  # its class, for class-conditional models
) -> Explained:
    """Noise an image to a timestep (Eq. 1) and evaluate every exit. Raises UserError when it does not fit the model."""
    pixels = decode_png(png)
    image = torch.from_numpy(pixels[None].copy() if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    if tuple(image.shape) != model.image_shape:
        raise UserError(
            f"this trace's images have shape {tuple(image.shape)}, the model takes {model.image_shape}: "
            "choose a trace that this run sampled"
        )
    device = next(model.parameters()).device
    clean = to_model_range(image)[None].to(device)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(device)
    t = torch.tensor([timestep], device=device)
    y: tuple[Any, ...] = (torch.tensor([label], device=device),) if model.backbone.num_classes else ()
    alpha_bar = schedule.alpha_bar_at(t)
    noisy = schedule.add_noise(clean, t, noise)
    if model.uem is not None and model.heads is not None:
        predictions, u = model.all_exits(noisy, t, *y)  # (N+1,1,C,H,W), (N,1)
    else:
        predictions, u = model(noisy, t, *y)[None], torch.empty(0, 1)
    target = training_target(model.prediction, clean, noise, alpha_bar)
    exit_target = predictions[-1] if model.exit_target == "full" else target
    maps = model.uncertainty_maps(noisy, t, *y)[:, 0] if model.uem is not None and model.uem.by_token else None

    def array(x: torch.Tensor) -> Floats:
        return x.float().cpu().numpy()

    errors = uncertainty_map(predictions, exit_target)[:, 0].mean(dim=1)  # (N+1,H,W)
    return Explained(
        timestep,
        float(alpha_bar),
        array(clean[0]),
        array(noise[0]),
        array(noisy[0]),
        array(target[0]),
        array(exit_target[0]),
        array(predictions[:, 0]),
        array(u[:, 0]),
        array(errors),
        None if maps is None else array(maps),
    )
