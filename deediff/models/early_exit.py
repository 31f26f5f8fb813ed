"""A backbone with one UEM and one output head before each block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deediff.models.backbone import Backbone
from deediff.models.uncertainty import UEM, build_uem


class EarlyExitModel(nn.Module):
    """Backbone + exits. Exit layer i means that i blocks were run; N is the backbone's own output.

    UEM i and head i read the *input* of block i (before its long skip is joined), i = 0 … N−1.
    """

    def __init__(self, backbone: Backbone, uem: UEM | None = None, heads: nn.ModuleList | None = None):
        super().__init__()
        self.backbone, self.uem, self.heads = backbone, uem, heads

    @property
    def num_blocks(self) -> int:
        """N."""
        return self.backbone.num_blocks

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return (self.backbone.in_chans, self.backbone.img_size, self.backbone.img_size)

    def add_exits(self, uem: dict[str, Any]) -> EarlyExitModel:
        """Attach fresh UEMs and output heads, in place."""
        device = next(self.backbone.parameters()).device
        self.uem = build_uem(uem, self.num_blocks, self.backbone.dim).to(device)
        self.heads = nn.ModuleList(self.backbone.make_head() for _ in range(self.num_blocks))
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
        return self.heads[layer](state)

    def uncertainty(self, layer: int, state: Tensor, t: Tensor) -> Tensor:
        """u of exit `layer` (0 … N−1) from the state it reads: (B, …), (B,) → (B,).

        In float32 even under autocast: a decision should not hang on the eight bits of bfloat16.
        Raises ValueError when the model has no UEMs.
        """
        if self.uem is None:
            raise ValueError("this model has no UEMs: train them first (stage 'exits' of the trainer)")
        with torch.autocast(state.device.type, enabled=False):
            return self.uem(layer, state.float(), t)

    def all_exits(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B,C,H,W), (B,) → predictions (N+1,B,C,H,W), the last one the backbone's own, and u (N,B).

        Raises ValueError when the model has no UEMs.
        """
        predictions, u = [], []
        for i, state in enumerate(self.backbone.states(x, t, y)):
            predictions.append(self.read_out(i, state))
            if i < self.num_blocks:
                u.append(self.uncertainty(i, state, t))
        return torch.stack(predictions), torch.stack(u)
