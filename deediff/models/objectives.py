"""Training objectives of DeeDiff: Eq. 4 for the backbone alone, Eq. 9 and 10 with exits."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn

from deediff.diffusion.losses import STANDARD, LossOptions, early_exit_loss, simple_loss
from deediff.models import EarlyExitModel


class BackboneObjective(nn.Module):
    """Eq. 4 for the backbone alone."""

    def __init__(self, model: EarlyExitModel):
        super().__init__()
        self.backbone = model.backbone

    def forward(self, x: Tensor, t: Tensor, target: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """x_t and target (B,C,H,W), t and labels (B,) → scalars by name, with `total`."""
        loss = simple_loss(self.backbone(x, t, y).float(), target)
        return {"total": loss, "simple": loss}


class ExitsObjective(nn.Module):
    """Eq. 7, 8 and 10 for UEMs and heads; Eq. 4 as well when the backbone is trained with them.

    A frozen backbone runs without gradients, so that its activations are not kept for the backward pass. If the
    model's `exit_target` is "full", its own prediction takes the place of the target, and Eq. 4 is zero.
    Raises ValueError for that with a backbone that is trained: the target would follow the exits.
    """

    def __init__(self, model: EarlyExitModel, frozen: bool, options: LossOptions = STANDARD):
        super().__init__()
        if model.exit_target == "full" and not frozen:
            raise ValueError("exits learn the full network's prediction (target full) with a frozen backbone only")
        self.model, self.frozen, self.options = model, frozen, options
        model.backbone.requires_grad_(not frozen)
        if model.uem is not None and model.heads is not None:
            model.heads.train_layers(model.uem.layers)

    def forward(self, x: Tensor, t: Tensor, target: Tensor | None, y: Tensor | None = None) -> dict[str, Tensor]:
        """x_t and target (B,C,H,W), t and labels (B,) → scalars by name, with `total`.

        The target may be None if exits learn the full network's prediction.
        """
        model, uem = self.model, self.model.uem
        assert uem is not None
        with torch.no_grad() if self.frozen else contextlib.nullcontext():
            states = list(model.backbone.states(x, t, y))
        exits = [*uem.layers, model.num_blocks]
        predictions = torch.stack([model.read_out(i, states[i], t).float() for i in exits])
        if model.exit_target == "full":
            target = predictions[-1].detach()
        assert target is not None
        with torch.autocast(x.device.type, enabled=False):
            inputs = [(i, states[i].float(), t) for i in uem.layers]
            tokens = [uem.map(*args) for args in inputs] if uem.gives_map else None
            u = torch.stack([uem(*args) for args in inputs] if tokens is None else [uem.pool(m) for m in tokens])
            maps = None if tokens is None else torch.stack([model.backbone.unpatchify(m) for m in tokens])
        return vars(early_exit_loss(predictions, u, target, self.options, maps=maps))
