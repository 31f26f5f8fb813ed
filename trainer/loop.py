"""The training loop: two stages, exact resume, one process or torchrun."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from deediff.checkpoints import load_checkpoint
from deediff.datasets import load_images, load_labels, to_model_range
from deediff.devices import choose_device, keep_freed_memory, training_precision
from deediff.diffusion.prediction import training_target
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel, make_backbone
from deediff.models.objectives import BackboneObjective, ExitsObjective
from deediff.sampling.sampler import sample
from trainer.batches import Processes, batch_at
from trainer.files import RunFiles
from trainer.optim import Optimizers, make_optimizer
from trainer.presets import Stage, TrainConfig


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
        c, self.schedule = config.model, Schedule()
        with torch.device("meta"):  # shapes only: what cannot be built is said before anything is trained
            blank = EarlyExitModel(make_backbone(c))
            self.backbone_config = blank.backbone.config()
            if config.exits.steps:
                self._with_exits(blank)
        self.files = RunFiles(self.folder, preset, config)
        self.data = load_images(config.dataset, c.img_size, c.in_chans, config.data_root)
        self.labels = self._labels()
        self.model, self.images_before = self._initial_model()
        self.model.null_label = config.label_dropout > 0
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.step = 0  # over both stages

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

    def _labels(self) -> Tensor | None:
        """The class of each image, None for an unconditional model. Raises UserError when they do not fit it."""
        config, wanted = self.config, self.config.model.num_classes
        if not wanted:
            return None
        labels = load_labels(config.dataset, config.data_root)
        classes, empty = int(labels.max()) + 1, config.label_dropout > 0
        if wanted != classes + empty:
            extra = ", and label dropout takes one more label that means none" if empty else ""
            raise UserError(
                f"{config.dataset} has {classes} classes{extra}: give --model.num-classes {classes + empty} "
                f"instead of {wanted}"
            )
        return labels

    def _initial_model(self) -> tuple[EarlyExitModel, int]:
        torch.manual_seed(self.config.seed)
        if self.config.init is not None:
            model, info = load_checkpoint(self.config.init)
            found, wanted = model.backbone.config(), self.backbone_config
            if found != wanted:
                differs = [k for k, v in wanted.items() if found.get(k) != v]
                raise UserError(f"--init {self.config.init} has another model (different: {', '.join(differs)})")
            if model.prediction != self.config.prediction:
                raise UserError(
                    f"--init {self.config.init} predicts {model.prediction}: give --prediction {model.prediction}"
                )
            model.train().requires_grad_(True)
            return EarlyExitModel(model.backbone, prediction=model.prediction).to(self.device), int(info["images_seen"])
        net = make_backbone(self.config.model, self.config.start)
        return EarlyExitModel(net, prediction=self.config.prediction).to(self.device), 0

    def run(self) -> Path:
        """Train both stages, resuming from `resume.pt` if there is one."""
        keep_freed_memory()
        config, saved = self.config, self.files.read_resume()
        if saved is not None:
            self.step = saved["step"]
        elif self.files.is_done:
            print(f"{self.folder} is already trained: choose another folder with --out to train again")
            return self.folder
        if self.is_main:
            self.files.open_metrics(self.step)
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
            self.files.forget_resume()
        if self.procs.count > 1:
            dist.barrier()
            dist.destroy_process_group()
        return self.folder

    def _attach_exits(self) -> None:
        """UEMs and heads go on the averaged backbone, so that is what they are trained for."""
        self.model.load_state_dict(self.ema.state_dict())
        torch.manual_seed(self.config.seed + 1)
        self._with_exits(self.model)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)

    def _with_exits(self, model: EarlyExitModel) -> EarlyExitModel:
        """The same model with fresh UEMs and output heads. Raises ValueError for options that do not fit it."""
        method = self.config.method
        return model.add_exits(method.uem_config(), method.heads, self.schedule.num_timesteps)

    def _run_stage(self, name: str, stage: Stage, first: int, saved: dict[str, Any] | None) -> None:
        objective: nn.Module
        if name == "backbone":
            objective = BackboneObjective(self.model)
        else:
            frozen = self.config.strategy == "frozen"
            objective = ExitsObjective(self.model, frozen, self.config.method.losses())
        trainable = [p for p in objective.parameters() if p.requires_grad]
        optimizer = make_optimizer(stage, trainable)
        if saved is not None:
            self.model.load_state_dict(saved["model"])
            self.ema.load_state_dict(saved["ema"])
            optimizer.load_state_dict(saved["optimizer"])
        parallel = DistributedDataParallel(objective) if self.procs.count > 1 else objective
        last = first + stage.steps
        tick, tick_step = time.perf_counter(), self.step
        for _ in self._progress(name, first, last):
            terms = self._terms(parallel, stage)
            lr = learning_rate(stage, self.step - first)
            optimizer.set_lr(lr)
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
                values = {k: float(v.detach()) for k, v in terms.items()}
                self.files.log(self.step, name, self.images_seen, values, lr, rate)
            if self.is_main and (self.step % self.config.save_every == 0 or self.step == last):
                self._save(name, optimizer, end_of_stage=self.step == last)
            if self.is_main and self.config.sample_every and self.step % self.config.sample_every == 0:
                self._sample_grid()

    def _terms(self, objective: nn.Module, stage: Stage) -> dict[str, Tensor]:
        """The losses of this step's batch."""
        batch = batch_at(self.config, stage, self.data, self.schedule, self.step, self.procs, self.labels)
        t, noise = batch.t.to(self.device), batch.noise.to(self.device)
        y = None if batch.labels is None else batch.labels.to(self.device)
        x0 = to_model_range(batch.images.to(self.device))
        x = self.schedule.add_noise(x0, t, noise)
        target = training_target(self.config.prediction, x0, noise, self.schedule.alpha_bar_at(t))
        with training_precision(self.device, self.config.precision):
            return objective(x, t, target, y)

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

    def _save(self, stage: str, optimizer: Optimizers, end_of_stage: bool) -> None:
        """Checkpoint (EMA weights), then what an exact resume needs."""
        self.files.save_checkpoint(self.ema, self.schedule, self.step, self.images_seen, stage, end_of_stage)
        self.files.save_resume(
            step=self.step,
            stage=stage,
            model=self.model.state_dict(),
            ema=self.ema.state_dict(),
            optimizer=optimizer.state_dict(),
        )
        self._write_run("training")

    def _write_run(self, status: str) -> None:
        self.files.write_run(status, self.model, self.step, self.images_seen)

    @torch.no_grad()
    def _sample_grid(self) -> None:
        """16 images of the averaged weights, DDIM with 50 steps, seeds 0 … 15, all classes in turn."""
        self.ema.eval()
        classes = None if self.labels is None else range(int(self.labels.max()) + 1)
        for step in sample(self.ema, num_samples=16, steps=50, schedule=self.schedule, classes=classes):
            x = step.x
        self.files.save_grid(self.step, x)
