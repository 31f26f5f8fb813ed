"""A backbone with one UEM and one output head before each block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deediff.diffusion.prediction import check_prediction
from deediff.models.backbone import Backbone
from deediff.models.uncertainty import UEM, Watched, build_uem

HEADS = ("each", "shared", "decoder")  # one per exit, one for all, or the network's own last layers (AdaDiff)


class EarlyExitModel(nn.Module):
    """Backbone + exits. Exit layer i means that i blocks were run; N is the backbone's own output.

    UEM i and head i read the *input* of block i (before its long skip is joined), i = 0 … N−1.
    """

    def __init__(
        self,
        backbone: Backbone,
        uem: UEM | None = None,
        heads: nn.ModuleList | None = None,
        prediction: str = "epsilon",  # what backbone and heads answer: "epsilon", "x0" or "v"
    ):
        super().__init__()
        self.backbone, self.uem, self.heads = backbone, uem, heads  # heads: one each, one for all, or none: `decode`
        self.prediction = check_prediction(prediction)
        self.null_label = False  # a class-conditional model's last label means "no class"
        self.origin: tuple[Path, str] | None = None  # the checkpoint file it was read from, and the SHA-256 of that

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
        """How the exits read out: one of HEADS, None without exits."""
        if self.heads is None:
            return None
        return {0: "decoder", 1: "shared"}.get(len(self.heads), "each")

    def has_exit(self, layer: int) -> bool:
        """Whether a sample can leave at this layer: it has a trained head, or is N."""
        trained = range(self.num_blocks) if self.uem is None else self.uem.layers
        return layer == self.num_blocks or (self.heads is not None and layer in trained)

    def add_exits(self, uem: dict[str, Any], heads: str = "each", num_timesteps: int = 1000) -> EarlyExitModel:
        """Attach fresh UEMs and output heads (one of HEADS), in place. Raises ValueError for unknown ones."""
        if heads not in HEADS:
            raise ValueError(f"the heads are {heads!r}, expected one of: {', '.join(HEADS)}")
        net = self.backbone
        watched = Watched(self.num_blocks, net.dim, net.extras, net.patch_dim, num_timesteps)
        self.uem = build_uem(uem, watched).to(next(net.parameters()).device)
        count = {"each": self.num_blocks, "shared": 1, "decoder": 0}[heads]
        self.heads = nn.ModuleList(net.make_head() for _ in range(count))
        return self

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """(B,C,H,W), (B,) → (B,C,H,W): the full network, no early exit."""
        return self.backbone(x, t, y)

    def read_out(self, layer: int, state: Tensor) -> Tensor:
        """Prediction of exit `layer` (0 … N) from the state it reads: (B, …) → (B,C,H,W).

        Raises ValueError when `layer` < N and the model has no output heads.
        """
        if layer == self.num_blocks:
            return self.backbone.decode(state)
        if self.heads is None:
            raise ValueError("this model has no output heads: train them first (stage 'exits' of the trainer)")
        if not len(self.heads):
            return self.backbone.decode(state)
        return self.heads[layer if len(self.heads) > 1 else 0](state)

    def uncertainty(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """u of exit `layer` (0 … N−1) from the state it reads: (B, …), (B,) → (B,).

        In float32 even under autocast: a decision should not hang on the eight bits of bfloat16.
        Raises ValueError when the model has no UEMs.
        """
        if self.uem is None:
            raise ValueError("this model has no UEMs: train them first (stage 'exits' of the trainer)")
        if not torch.is_autocast_enabled(state.device.type):  # entering the context costs more than the UEM itself
            return self.uem(layer, state, t)
        with torch.autocast(state.device.type, enabled=False):
            return self.uem(layer, state.float(), t)

    def uncertainty_maps(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """u over the image, before it becomes one number: (B,C,H,W), (B,) → (N,B,h,w) float32.

        One value per token; where the UEM tells the values of the image apart, per pixel, the mean of its
        channels. NaN at layers without a UEM. Raises ValueError when the UEMs know whole images only.
        """
        uem, net = self.uem, self.backbone
        if uem is None or not uem.by_token:
            raise ValueError("this model has no UEMs that look at tokens one by one, so there is no map of u to show")
        maps: dict[int, Tensor] = {}
        for i, state in zip(range(self.num_blocks), net.states(x, t, y), strict=False):
            if i in uem.layers:
                with torch.autocast(x.device.type, enabled=False):
                    values = uem.map(i, state.float(), t)  # (B, tokens, values)
                image_tokens = state.shape[1] - net.extras
                maps[i] = net.unpatchify(values[:, -image_tokens:]).mean(dim=1)
        nothing = torch.full_like(maps[uem.layers[0]], torch.nan)
        return torch.stack([maps.get(i, nothing) for i in range(self.num_blocks)])

    def all_exits(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B,C,H,W), (B,) → predictions (N+1,B,C,H,W), the last one the backbone's own, and u (N,B).

        u is NaN at layers without a UEM.
        Raises ValueError when the model has no UEMs.
        """
        predictions, u = [], []
        for i, state in enumerate(self.backbone.states(x, t, y)):
            predictions.append(self.read_out(i, state))
            if i < self.num_blocks:
                known = self.uem is None or i in self.uem.layers
                u.append(self.uncertainty(i, state, t) if known else torch.full((len(x),), torch.nan, device=x.device))
        return torch.stack(predictions), torch.stack(u)
