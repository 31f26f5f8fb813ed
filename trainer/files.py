"""The files of a training: run.json, metrics, checkpoints, resume.pt and sample grids."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from deediff.checkpoints import find_checkpoint, save_checkpoint
from deediff.datasets import Images, to_uint8
from deediff.devices import versions
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.importing.pickled import load_pickled
from deediff.json_files import FORMAT_VERSION, read_json, write_json
from deediff.models import EarlyExitModel
from deediff.photos.folder import FolderImages
from deediff.storage import write_atomically
from trainer.config import NO_DATA, TrainConfig
from trainer.resuming import check_settings, settings_of

LOSSES = ("total", "simple", "uncertainty", "ual", "layer")


def write_state(path: Path, state: dict[str, Any]) -> None:
    """`torch.save`, atomically; read by `load_pickled`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


class RunFiles:
    """The run folder of one training. Raises UserError when it holds a training with other settings."""

    def __init__(self, folder: Path, preset: str, config: TrainConfig):
        self.folder, self.preset, self.config = folder, preset, config
        self.metrics: list[dict[str, Any]] = []
        self.images: Images | None = None  # of the training
        self.changes = check_settings(folder, config)  # of settings, since the training began

    @property
    def dataset(self) -> str | None:
        """The backbone's images; without data, those of --init, None where it does not name them."""
        if self.config.dataset != NO_DATA or self.config.init is None:
            return self.config.dataset
        file = find_checkpoint(self.config.init)
        run = file.parent.parent / "run.json"
        named = read_json(file.with_suffix(".json")).get("dataset")
        return named or (read_json(run).get("dataset") if run.exists() else None)

    @property
    def is_done(self) -> bool:
        """Whether this training is complete."""
        return (self.folder / "run.json").exists() and read_json(self.folder / "run.json").get("status") == "done"

    def read_resume(self) -> dict[str, Any] | None:
        """The state written by `write_resume`, None without one. Raises UserError when it is damaged."""
        path = self.folder / "resume.pt"
        if not path.exists():
            return None
        saved = load_pickled(path)
        if not isinstance(saved, dict) or not {"step", "stage", "model", "ema", "optimizer"} <= saved.keys():
            raise UserError(f"{path} is not a resume file: delete it to train from the start")
        return saved

    def open_metrics(self, step: int) -> None:
        """Continue the metrics after `step`; later rows are dropped."""
        from torch.utils.tensorboard import SummaryWriter

        path = self.folder / "metrics.parquet"
        if path.exists():
            self.metrics = [row for row in pq.read_table(path).to_pylist() if row["step"] <= step]
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, stage: str, images_seen: int, terms: dict[str, float], lr: float, rate: float) -> None:
        """Append a row to metrics.parquet and TensorBoard."""
        row: dict[str, Any] = {"step": step, "stage": stage, "images_seen": images_seen}
        row |= {f"loss_{name}": terms.get(name, math.nan) for name in LOSSES}
        row |= {"learning_rate": lr, "images_per_second": rate}
        self.metrics.append(row)
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self.metrics), buffer)
        write_atomically(self.folder / "metrics.parquet", buffer.getvalue())
        for key, value in row.items():
            if isinstance(value, float) and not math.isnan(value):
                self.board.add_scalar(f"{stage}/{key}", value, step)
        self.board.flush()

    def write_checkpoint(
        self, ema: EarlyExitModel, schedule: Schedule, step: int, images_seen: int, stage: str, end_of_stage: bool
    ) -> None:
        """Write the averaged weights, and delete older checkpoints from within a stage."""
        folder, config = self.folder / "checkpoints", self.config
        save_checkpoint(
            folder / f"{step}.safetensors",
            ema,
            schedule,
            step,
            images_seen,
            dtype=getattr(torch, config.save_dtype),
            base=find_checkpoint(config.init) if config.exits_only and config.init is not None else None,
            stage=stage,
            end_of_stage=end_of_stage,
            dataset=self.dataset,
        )
        for old in folder.glob("*.json"):
            if old.stem.isdigit() and int(old.stem) != step and not read_json(old).get("end_of_stage"):
                old.with_suffix(".safetensors").unlink(missing_ok=True)
                old.unlink()

    def write_resume(self, **state: Any) -> None:
        """Write the state of an exact resume."""
        write_state(self.folder / "resume.pt", state)

    def delete_resume(self) -> None:
        """Delete the resume file of a complete training."""
        (self.folder / "resume.pt").unlink(missing_ok=True)

    def write_run(self, status: str, model: EarlyExitModel, step: int, images_seen: int) -> None:
        """Write run.json: status, configuration, parameter counts and versions."""

        def count(module: nn.Module | None) -> int:
            return sum(p.numel() for p in module.parameters()) if module is not None else 0

        write_json(
            self.folder / "run.json",
            {
                "format_version": FORMAT_VERSION,
                "status": status,
                "preset": self.preset,
                "dataset": self.dataset,
                **self._folder_facts(),
                **({"class_names": list(model.class_names)} if model.class_names else {}),
                "images_seen": images_seen,
                "step": step,
                "parameters": {
                    "backbone": count(model.backbone),
                    "uem": count(model.uem),
                    "heads": count(model.heads),
                },
                "config": settings_of(self.config),
                **({"changes": self.changes} if self.changes else {}),
                "versions": versions(),
                "device": str(next(model.parameters()).device),
            },
        )

    def _folder_facts(self) -> dict[str, Any]:
        """Numbers of files in a folder of images, and the names of its classes."""
        if not isinstance(self.images, FolderImages):
            return {}
        return {"images": self.images.counts(), "class_names": self.images.class_names}

    def write_grid(self, step: int, x: Tensor) -> None:
        """Write 16 images (16,C,H,W) in [−1, 1] as samples/<step>.png."""
        grid = to_uint8(x.cpu()).reshape(4, 4, *x.shape[1:]).permute(0, 3, 1, 4, 2)  # rows, H, columns, W, C
        _, height, _, width, channels = grid.shape
        pixels = grid.reshape(4 * height, 4 * width, channels).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG")
        write_atomically(self.folder / "samples" / f"{step}.png", buffer.getvalue())
