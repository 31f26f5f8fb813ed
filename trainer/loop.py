"""The training loop: two stages, exact resume, one process or torchrun."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from deediff.checkpoints import (
    find_checkpoint,
    load_checkpoint,
    read_json,
    save_checkpoint,
    write_atomically,
    write_json,
)
from deediff.datasets import Images, load_images, to_model_range
from deediff.devices import autocast, choose_device, versions
from deediff.diffusion.objectives import BackboneObjective, ExitsObjective
from deediff.diffusion.prediction import training_target
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.importing import load_pickled
from deediff.models import EarlyExitModel, UViT
from deediff.models.uvit import identity_start_
from trainer.optim import Optimizers, make_optimizer
from trainer.presets import Stage, TrainConfig

FORMAT_VERSION = 1
MACHINE_FIELDS = {"device", "data_root", "out"}
FREE_FIELDS = {"save_dtype", "save_every", "sample_every", "log_every"}  # may differ on resume


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among those torchrun started."""

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: torch.device) -> Processes:
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())


def batch_at(
    config: TrainConfig, stage: Stage, data: Images, schedule: Schedule, step: int, procs: Processes
) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B,C,H,W) uint8, timesteps (B,), noise of global step `step`: this process's share.

    A function of (seed, step) alone, so a resumed training and one on more processes see the same.
    Timesteps are stratified: one in each of B equal slices of 0 … T−1.
    """
    size = stage.batch_size
    position = torch.arange(step * size, (step + 1) * size)
    index = torch.empty(size, dtype=torch.int64)
    for epoch in torch.unique(position // len(data)).tolist():
        order = _epoch_order(len(data), config.seed, epoch)
        inside = position // len(data) == epoch
        index[inside] = order[position[inside] % len(data)]
    rng = torch.Generator().manual_seed(int(np.random.SeedSequence([config.seed, 1, step]).generate_state(1)[0]))
    t = ((torch.arange(size) + torch.rand(size, generator=rng)) / size * schedule.num_timesteps).long()
    t = t.clamp(max=schedule.num_timesteps - 1)[torch.randperm(size, generator=rng)]
    flips = torch.rand(size, generator=rng) < 0.5
    c = config.model
    noise = torch.randn(size, c.in_chans, c.img_size, c.img_size, generator=rng)
    mine = slice(procs.rank, None, procs.count)
    images = data[index[mine]]
    if config.flip:
        images = torch.where(flips[mine][:, None, None, None], images.flip(-1), images)
    return images, t[mine], noise[mine]


_orders: dict[tuple[int, int, int], Tensor] = {}


def _epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    key = (size, seed, epoch)
    if key not in _orders:
        if len(_orders) > 2:
            _orders.clear()
        state = int(np.random.SeedSequence([seed, 0, epoch]).generate_state(1)[0])
        _orders[key] = torch.randperm(size, generator=torch.Generator().manual_seed(state))
    return _orders[key]


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine to zero; `step` counts within the stage."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup))
    return stage.lr * warm * 0.5 * (1 + math.cos(math.pi * step / max(1, stage.steps)))


class Training:
    """Everything one run needs while it trains. `run()` returns the run folder."""

    def __init__(self, preset: str, config: TrainConfig):
        self.preset, self.config = preset, config
        self.folder = config.out or Path("runs") / preset
        self.device = choose_device(config.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.procs = Processes.join(self.device)
        if config.backbone.batch_size % self.procs.count or config.exits.batch_size % self.procs.count:
            raise UserError(f"batch_size is not a multiple of the {self.procs.count} processes: change one of them")
        if not config.backbone.steps and config.init is None and config.strategy != "scratch":
            raise UserError("--backbone.steps is 0, so there is nothing to put exits on: give a checkpoint with --init")
        c = config.model
        self._check_same_settings()
        self.data = load_images(config.dataset, c.img_size, c.in_chans, config.data_root)
        self.schedule = Schedule()
        self.model, self.images_before = self._initial_model()
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.step = 0  # over both stages
        self.metrics: list[dict[str, Any]] = []

    @property
    def is_main(self) -> bool:
        return self.procs.rank == 0

    @property
    def images_seen(self) -> int:
        first, config = self.config.backbone.steps, self.config
        images = min(self.step, first) * config.backbone.batch_size
        if config.strategy != "frozen":
            images += max(0, self.step - first) * config.exits.batch_size
        return self.images_before + images

    def _initial_model(self) -> tuple[EarlyExitModel, int]:
        torch.manual_seed(self.config.seed)
        if self.config.init is not None:
            model, info = load_checkpoint(self.config.init)
            wanted = {"name": "uvit", **dataclasses.asdict(self.config.model)}
            if model.backbone.config() != wanted:
                differs = [k for k, v in wanted.items() if model.backbone.config().get(k) != v]
                raise UserError(f"--init {self.config.init} has another model (different: {', '.join(differs)})")
            if model.prediction != self.config.prediction:
                raise UserError(
                    f"--init {self.config.init} predicts {model.prediction}: give --prediction {model.prediction}"
                )
            model.train().requires_grad_(True)
            return EarlyExitModel(model.backbone, prediction=model.prediction).to(self.device), int(info["images_seen"])
        net = UViT(self.config.model)
        if self.config.start == "identity":
            identity_start_(net)
        return EarlyExitModel(net, prediction=self.config.prediction).to(self.device), 0

    def _settings(self) -> dict[str, Any]:
        """The configuration as JSON, without what belongs to this machine."""
        settings = json.loads(json.dumps(dataclasses.asdict(self.config), default=str))
        for field in MACHINE_FIELDS:
            del settings[field]
        if self.config.init is not None:
            file = find_checkpoint(self.config.init)
            settings["init"] = f"{file.parent.parent.name}/{file.stem}"
        return settings

    def _check_same_settings(self) -> None:
        if not (self.folder / "run.json").exists():
            return
        theirs, ours = read_json(self.folder / "run.json").get("config") or {}, self._settings()
        differs = [k for k in ours if k not in FREE_FIELDS and theirs.get(k) != ours[k]]
        if differs:
            raise UserError(
                f"{self.folder} was trained with other settings ({', '.join(differs)}): "
                "repeat them to resume, or choose another folder with --out"
            )

    def run(self) -> Path:
        """Train both stages, resuming from `resume.pt` if there is one."""
        config, resume = self.config, self.folder / "resume.pt"
        saved: dict[str, Any] | None = None
        if resume.exists():
            saved = self._load_resume(resume)
            self.step = saved["step"]
        elif (self.folder / "run.json").exists() and read_json(self.folder / "run.json").get("status") == "done":
            print(f"{self.folder} is already trained: choose another folder with --out to train again")
            return self.folder
        if self.is_main:
            self._read_metrics()
            self._write_run("training")
        for name, stage, first in (
            ("backbone", config.backbone, 0),
            ("exits", config.exits, config.backbone.steps),
        ):
            if not stage.steps or self.step > first + stage.steps:
                continue
            if name == "exits":
                self._attach_exits()
            if self.step < first + stage.steps or (saved is not None and saved["stage"] == name):
                self._run_stage(name, stage, first, saved if saved and saved["stage"] == name else None)
        if self.is_main:
            self._write_run("done")
            resume.unlink(missing_ok=True)
        if self.procs.count > 1:
            dist.barrier()
            dist.destroy_process_group()
        return self.folder

    @staticmethod
    def _load_resume(path: Path) -> dict[str, Any]:
        saved = load_pickled(path)
        if not isinstance(saved, dict) or not {"step", "stage", "model", "ema", "optimizer"} <= saved.keys():
            raise UserError(f"{path} is not what a training resumes from: delete it to train from the start")
        return saved

    def _attach_exits(self) -> None:
        """UEMs and heads go on the averaged backbone, so that is what they are trained for."""
        self.model.load_state_dict(self.ema.state_dict())
        torch.manual_seed(self.config.seed + 1)
        method = self.config.method
        self.model.add_exits(method.uem_config(), method.heads, self.schedule.num_timesteps)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)

    def _run_stage(self, name: str, stage: Stage, first: int, saved: dict[str, Any] | None) -> None:
        objective: nn.Module
        if name == "backbone":
            objective = BackboneObjective(self.model)
        else:
            frozen = self.config.strategy == "frozen"
            objective = ExitsObjective(self.model, frozen, **self.config.method.losses())
        trainable = [p for p in objective.parameters() if p.requires_grad]
        optimizer = make_optimizer(stage, trainable)
        if saved is not None:
            self.model.load_state_dict(saved["model"])
            self.ema.load_state_dict(saved["ema"])
            optimizer.load_state_dict(saved["optimizer"])
        parallel = DistributedDataParallel(objective) if self.procs.count > 1 else objective
        bf16 = autocast(self.device)
        last = first + stage.steps
        tick, tick_step = time.perf_counter(), self.step
        for _ in self._progress(name, first, last):
            images, t, noise = batch_at(self.config, stage, self.data, self.schedule, self.step, self.procs)
            t, noise = t.to(self.device), noise.to(self.device)
            x0 = to_model_range(images.to(self.device))
            x = self.schedule.add_noise(x0, t, noise)
            target = training_target(self.config.prediction, x0, noise, self.schedule.alpha_bar_at(t))
            lr = learning_rate(stage, self.step - first)
            optimizer.set_lr(lr)
            with bf16:
                terms = parallel(x, t, target)
            optimizer.zero_grad()
            terms["total"].backward()
            if stage.clip_grad:
                nn.utils.clip_grad_norm_(trainable, stage.clip_grad)
            optimizer.step()
            self._update_ema(self.step - first)
            self.step += 1
            if self.is_main and (self.step % self.config.log_every == 0 or self.step == last):
                now = time.perf_counter()
                rate = (self.step - tick_step) * stage.batch_size / (now - tick)
                tick, tick_step = now, self.step
                self._log(name, {k: float(v.detach()) for k, v in terms.items()}, lr, rate)
            if self.is_main and (self.step % self.config.save_every == 0 or self.step == last):
                self._save(name, optimizer, end_of_stage=self.step == last)
            if self.is_main and self.config.sample_every and self.step % self.config.sample_every == 0:
                self._sample_grid()

    def _progress(self, name: str, first: int, last: int) -> Iterator[int]:
        stage = self.config.backbone if name == "backbone" else self.config.exits
        bar = tqdm(
            range(self.step, last),
            desc=f"{self.preset} · {name}",
            initial=(self.step - first) * stage.batch_size,
            total=(last - first) * stage.batch_size,
            unit="images",
            unit_scale=True,
            disable=not self.is_main,
            mininterval=1,
        )
        with bar:
            for step in range(self.step, last):
                yield step
                bar.update(stage.batch_size)

    @torch.no_grad()
    def _update_ema(self, stage_step: int) -> None:
        decay = min(self.config.ema, (1 + stage_step) / (10 + stage_step))
        pairs = [(e, p) for e, p in zip(self.ema.parameters(), self.model.parameters(), strict=True) if p.requires_grad]
        torch._foreach_lerp_([e for e, _ in pairs], [p for _, p in pairs], 1 - decay)

    def _log(self, stage: str, terms: dict[str, float], lr: float, rate: float) -> None:
        if not math.isfinite(terms["total"]):
            raise UserError(f"the loss is not finite at step {self.step}: lower the learning rate and start again")
        row: dict[str, Any] = {"step": self.step, "stage": stage, "images_seen": self.images_seen}
        row |= {
            f"loss_{name}": terms.get(name, math.nan) for name in ("total", "simple", "uncertainty", "ual", "layer")
        }
        row |= {"learning_rate": lr, "images_per_second": rate}
        self.metrics.append(row)
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(self.metrics), buffer)
        write_atomically(self.folder / "metrics.parquet", buffer.getvalue())
        for key, value in row.items():
            if isinstance(value, float) and not math.isnan(value):
                self.board.add_scalar(f"{stage}/{key}", value, self.step)
        self.board.flush()

    def _read_metrics(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = self.folder / "metrics.parquet"
        if path.exists():
            self.metrics = [row for row in pq.read_table(path).to_pylist() if row["step"] <= self.step]
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)

    def _save(self, stage: str, optimizer: Optimizers, end_of_stage: bool) -> None:
        """Checkpoint (EMA weights), then what an exact resume needs; older mid-stage checkpoints go."""
        folder = self.folder / "checkpoints"
        save_checkpoint(
            folder / f"{self.step}.safetensors", self.ema, self.schedule, self.step, self.images_seen,
            dtype=getattr(torch, self.config.save_dtype),
            stage=stage, end_of_stage=end_of_stage, dataset=self.config.dataset,
        )  # fmt: skip
        for old in folder.glob("*.json"):
            if old.stem.isdigit() and int(old.stem) != self.step and not read_json(old).get("end_of_stage"):
                old.with_suffix(".safetensors").unlink(missing_ok=True)
                old.unlink()
        buffer = io.BytesIO()
        torch.save(
            {
                "step": self.step,
                "stage": stage,
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": optimizer.state_dict(),
            },
            buffer,
        )
        write_atomically(self.folder / "resume.pt", buffer.getvalue())
        self._write_run("training")

    def _write_run(self, status: str) -> None:
        def count(module: nn.Module | None) -> int:
            return sum(p.numel() for p in module.parameters()) if module is not None else 0

        write_json(
            self.folder / "run.json",
            {
                "format_version": FORMAT_VERSION,
                "status": status,
                "preset": self.preset,
                "dataset": self.config.dataset,
                "images_seen": self.images_seen,
                "step": self.step,
                "parameters": {
                    "backbone": count(self.model.backbone),
                    "uem": count(self.model.uem),
                    "heads": count(self.model.heads),
                },
                "config": self._settings(),
                "versions": versions(),
                "device": str(self.device),
            },
        )

    @torch.no_grad()
    def _sample_grid(self) -> None:
        """16 images of the averaged weights, DDIM with 50 steps, seeds 0 … 15: samples/<step>.png."""
        import deediff
        from deediff.datasets import to_uint8

        self.ema.eval()
        for step in deediff.sample(self.ema, num_samples=16, solver="ddim", steps=50, seed=0, schedule=self.schedule):
            x = step.x
        grid = to_uint8(x.cpu()).reshape(4, 4, *x.shape[1:]).permute(0, 3, 1, 4, 2)  # rows, H, columns, W, C
        _, height, _, width, channels = grid.shape
        pixels = grid.reshape(4 * height, 4 * width, channels).numpy()
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG")
        write_atomically(self.folder / "samples" / f"{self.step}.png", buffer.getvalue())
