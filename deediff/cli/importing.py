"""`deediff import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from deediff.cli.command import Command, Flag, Result, defaults_to, one_of
from deediff.importing.checkpoint import SCHEDULES, Untold, import_checkpoint
from deediff.importing.exit_layers import import_exit_layers
from deediff.json_files import read_json
from deediff.models import PRESETS
from deediff.models.official import LAYOUTS
from deediff.models.uems import UEMS


@dataclass(frozen=True, kw_only=True)
class Import(Command):
    """Import a U-ViT, DiT, AdaDiff or DuoDiff checkpoint, or the exit layers of published runs, as a run."""

    path: Positional[Path]
    """A file of weights, or the folder N.ckpt of a training; for duodiff-indices a folder of .pt files or an .npz."""
    out: Path
    """The run folder to write."""
    layout: Annotated[str, one_of(("auto", *LAYOUTS, "duodiff-indices"))] = "auto"
    """The code that wrote it; auto: by the names of the tensors. duodiff-indices: exit layers without images."""
    num_heads: Annotated[int | None, defaults_to("that of the preset of this shape")] = None
    """Checkpoints: number of attention heads."""
    normalize_timesteps: Flag = False
    """Checkpoints: the network was trained on t/1000."""
    schedule: Annotated[str, one_of(("auto", *SCHEDULES))] = "auto"
    """Checkpoints: noise schedule. auto: linear, but Stable Diffusion's for a U-ViT of latents."""
    null_label: Annotated[bool | None, defaults_to("known for ImageNet's labels", "")] = None
    """Checkpoints: whether the last label means no class."""
    images_seen: int = 0
    """Checkpoints: number of training images behind the weights, for the record."""
    model: Annotated[str, one_of(tuple(PRESETS))] = "uvit_small"
    """duodiff-indices: the model that was sampled."""
    uem: Annotated[str, one_of(("auto", *UEMS))] = "auto"
    """duodiff-indices: its UEM. auto: read from the name."""

    def run(self) -> Result:
        """Write the run."""
        if self.layout != "duodiff-indices":
            untold = Untold(self.num_heads, self.normalize_timesteps, self.schedule, self.null_label)
            run = import_checkpoint(self.path, self.out, self.layout, images_seen=self.images_seen, untold=untold)
        else:
            run = import_exit_layers(self.path, self.out, self.model, self.uem)
        notes = read_json(run / "run.json").get("notes")
        return {"run": str(run), **({"note": "; ".join(notes)} if notes else {})}
