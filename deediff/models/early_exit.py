"""A backbone with one UEM and one output head before each block."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deediff.diffusion.prediction import check_prediction
from deediff.diffusion.schedule import Schedule
from deediff.models.backbone import Backbone
from deediff.models.heads import OutputHeads, build_heads
from deediff.models.uems import UEM, NetworkShape, build_uem

ExitTarget = Literal["noise", "full"]  # the training target of the backbone, or the full network's prediction


class EarlyExitModel(nn.Module):
    """Backbone + exits. Exit layer i means that i blocks were run; N is the backbone's own output.

    UEM i and head i read the *input* of block i (before its long skip is joined), i = 0 … N−1.
    """

    def __init__(
        self,
        backbone: Backbone,
        uem: UEM | None = None,
        heads: OutputHeads | None = None,
        prediction: str = "epsilon",  # output of backbone and heads: "epsilon", "x0" or "v"
    ):
        super().__init__()
        self.backbone, self.uem, self.heads = backbone, uem, heads
        self.prediction = check_prediction(prediction)
        self.exit_target: ExitTarget = "noise"  # what UEMs and heads learn
        self.schedule = Schedule()  # noise schedule of its training
        self.class_names: tuple[str, ...] = ()  # of its labels, in order; none where they are unknown
        self.null_label = False  # a class-conditional model's last label means "no class"
        self.origin: tuple[Path, str] | None = None  # checkpoint file that was loaded, and its SHA-256

    @property
    def num_blocks(self) -> int:
        """N."""
        return self.backbone.num_blocks

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.backbone.in_chans, self.backbone.img_size, self.backbone.img_size)

    @property
    def head_kind(self) -> str | None:
        """Key of `HEADS`; None without exits."""
        return None if self.heads is None else self.heads.kind

    def has_exit(self, layer: int) -> bool:
        """Whether a sample can exit at this layer: layer N, or one with a trained head."""
        trained = range(self.num_blocks) if self.uem is None else self.uem.layers
        return layer == self.num_blocks or (self.heads is not None and layer in trained)

    @property
    def head(self) -> str | None:
        """Key of `HEAD_KINDS`; None without exits."""
        return None if self.heads is None else self.heads.head

    def add_exits(
        self,
        uem: dict[str, Any],
        heads: str = "each",  # key of `HEADS`
        num_timesteps: int = 1000,
        head: str = "linear",  # key of `HEAD_KINDS`
    ) -> EarlyExitModel:
        """Attach fresh UEMs and output heads, in place. Raises ValueError for unknown ones."""
        net = self.backbone
        uems = build_uem(uem, NetworkShape.of(net, num_timesteps)).to(next(net.parameters()).device)
        self.heads, self.uem = build_heads(heads, net, head, num_timesteps), uems
        return self

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,C,H,W), (B,) → (B,C,H,W): the full network, no early exit."""
        return self.backbone(x, t, y)

    def read_out(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """Prediction of exit `layer` (0 … N) from its input state: (B, …), (B,) → (B,C,H,W).

        Raises ValueError when `layer` < N and the model has no output heads.
        """
        if layer == self.num_blocks:
            return self.backbone.decode(state)
        if self.heads is None:
            raise ValueError("this model has no output heads: train them first (stage 'exits' of the trainer)")
        return self.heads.predict(layer, state, t, self.backbone)

    def uncertainty(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """u of exit `layer` (0 … N−1) from its input state: (B, …), (B,) → (B,).

        In float32 even under autocast: bfloat16 has 8 significant bits, too few for a threshold on u.
        Raises ValueError when the model has no UEMs.
        """
        if self.uem is None:
            raise ValueError("this model has no UEMs: train them first (stage 'exits' of the trainer)")
        if not torch.is_autocast_enabled(state.device.type):  # entering the context costs more than the UEM itself
            return self.uem(layer, state, t)
        with torch.autocast(state.device.type, enabled=False):
            return self.uem(layer, state.float(), t)

    def uncertainty_maps(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """u over the image, before its aggregation: (B,C,H,W), (B,) → (N,B,h,w) float32.

        One value per token; per pixel, averaged over channels, if the UEM has one per value of the image. Where layers
        differ in resolution, at the finest of them. NaN at layers without a UEM. Raises ValueError when the UEMs give
        scalars only.
        """
        uem, net = self.uem, self.backbone
        if uem is None or not uem.by_token:
            raise ValueError("this model has no UEMs with one value per token, so it has no maps of u")
        maps: dict[int, Tensor] = {}
        for i, state in zip(range(self.num_blocks), net.states(x, t, y), strict=False):
            if i in uem.layers:
                with torch.autocast(x.device.type, enabled=False):
                    values = uem.map(i, state.float(), t)  # (B, tokens, values)
                image_tokens = state.shape[1] - net.extras
                maps[i] = net.unpatchify(values[:, -image_tokens:]).mean(dim=1)
        finest = max(maps.values(), key=lambda each: each.shape[-1])
        missing = torch.full_like(finest, torch.nan)
        found = [maps.get(i, missing) for i in range(self.num_blocks)]
        return torch.stack([F.interpolate(each[:, None], finest.shape[1:])[:, 0] for each in found])

    def all_exits(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B,C,H,W), (B,) → predictions (N+1,B,C,H,W), of which the last is the backbone's own, and u (N,B).

        u is NaN at layers without a UEM. Raises ValueError when the model has no UEMs.
        """
        predictions, u = [], []
        for i, state in enumerate(self.backbone.states(x, t, y)):
            predictions.append(self.read_out(i, state, t))
            if i < self.num_blocks:
                known = self.uem is None or i in self.uem.layers
                u.append(self.uncertainty(i, state, t) if known else torch.full((len(x),), torch.nan, device=x.device))
        return torch.stack(predictions), torch.stack(u)
