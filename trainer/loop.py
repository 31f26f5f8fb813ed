"""The training loop: two stages, exact resume, one process or several under torchrun."""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from deediff.datasets import Images, class_names, load_images, to_model_range
from deediff.devices import choose_device, keep_freed_memory, training_precision
from deediff.diffusion.prediction import training_target
from deediff.diffusion.schedule import Schedule
from deediff.models.objectives import BackboneObjective, ExitsObjective
from deediff.photos.folder import FolderImages
from deediff.sampling.sampler import sample
from trainer.batches import Processes, batch_at
from trainer.config import NO_DATA, Stage, TrainConfig
from trainer.files import RunFiles
from trainer.finite import FiniteGuard
from trainer.optim import Optimizers, make_optimizer
from trainer.start import add_exits, check_config, initial_model, photo_options, training_labels
from trainer.trajectories import points_at


def learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine to zero; `step` counts within the stage."""
    warm = min(1.0, (step + 1) / max(1, stage.warmup))
    return stage.lr * warm * 0.5 * (1 + math.cos(math.pi * step / max(1, stage.steps)))


class Phase(NamedTuple):
    """One stage within the training."""

    name: str  # backbone or exits
    stage: Stage
    first: int  # number of its first step, counted over both stages

    @property
    def last(self) -> int:
        return self.first + self.stage.steps


class Training:
    """One training. `run()` trains, or resumes, and returns the run folder."""

    def __init__(self, preset: str, config: TrainConfig):
        """Load data and initial weights. Raises UserError for a configuration that cannot be trained."""
        self.preset, self.config = preset, config
        self.folder = config.out or Path("runs") / preset
        self.device = choose_device(config.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.procs = Processes.join(self.device)
        self.schedule = Schedule()
        check_config(config, self.schedule, self.procs.count)
        self.files = RunFiles(self.folder, preset, config)
        self.data: Images | None = None
        if config.dataset != NO_DATA:
            shape = (config.model.img_size, config.model.in_chans)
            self.data = load_images(config.dataset, *shape, config.data_root, photos=photo_options(config))
            self.files.images = self.data
            if isinstance(self.data, FolderImages) and self.is_main:
                print(self.data.summary(), file=sys.stderr)
        self.labels = training_labels(config, self.data)
        self.model, self.images_before = initial_model(config, self.device)
        self.schedule = self.model.schedule
        if self.labels is not None:
            self.model.class_names = class_names(config.dataset, self.data)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.step = 0  # counted over both stages

    def run(self) -> Path:
        """Train both stages, from the resume file if there is one."""
        keep_freed_memory()
        saved = self.files.read_resume()
        if saved is not None:
            self.step = saved["step"]
        elif self.files.is_done:
            print(f"{self.folder} is already trained: choose another folder with --out to train again")
            return self.folder
        if self.is_main:
            self.files.open_metrics(self.step)
            self._write_run("training")
        backbone, exits = self.config.backbone, self.config.exits
        for phase in (Phase("backbone", backbone, 0), Phase("exits", exits, backbone.steps)):
            if not phase.stage.steps or self.step > phase.last:
                continue
            if phase.name == "exits":
                self._attach_exits()
            resumed = saved if saved is not None and saved["stage"] == phase.name else None
            if self.step < phase.last or resumed is not None:
                self._run_phase(phase, resumed)
        if self.is_main:
            self._write_run("done")
            self.files.delete_resume()
        if self.procs.count > 1:
            dist.barrier()
            dist.destroy_process_group()
        return self.folder

    def _attach_exits(self) -> None:
        """Put fresh UEMs and heads on the averaged backbone, which is the one that is kept."""
        self.model.load_state_dict(self.ema.state_dict())
        torch.manual_seed(self.config.seed + 1)
        add_exits(self.model, self.config, self.schedule)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)

    def _run_phase(self, phase: Phase, saved: dict[str, Any] | None) -> None:
        stage, config = phase.stage, self.config
        objective = self._objective(phase)
        trainable = [p for p in objective.parameters() if p.requires_grad]
        optimizer = make_optimizer(stage, trainable)
        if saved is not None:
            self.model.load_state_dict(saved["model"])
            self.ema.load_state_dict(saved["ema"])
            optimizer.load_state_dict(saved["optimizer"])
        parallel = DistributedDataParallel(objective) if self.procs.count > 1 else objective
        guard = FiniteGuard(self.device)
        logged_at, logged_step = time.perf_counter(), self.step
        for _ in self._progress(phase):
            terms = self._losses(parallel, stage)
            lr = learning_rate(stage, self.step - phase.first)
            optimizer.set_lr(lr)
            optimizer.zero_grad()
            terms["total"].backward()
            norm = nn.utils.clip_grad_norm_(trainable, stage.clip_grad or math.inf)
            guard.watch(terms["total"], norm)
            optimizer.step()
            self._update_ema(self.step - phase.first)
            self.step += 1
            at_end = self.step == phase.last
            logs, saves = (self.step % n == 0 or at_end for n in (config.log_every, config.save_every))
            if logs or saves or self.device.type == "cpu":
                guard.check(self.step, self._weights() if saves else (), getattr(torch, config.save_dtype))
            if not self.is_main:
                continue
            if logs:
                now = time.perf_counter()
                rate = (self.step - logged_step) * stage.batch_size / (now - logged_at)
                logged_at, logged_step = now, self.step
                values = {name: float(value.detach()) for name, value in terms.items()}
                self.files.log(self.step, phase.name, self.images_seen, values, lr, rate)
            if saves:
                self._save(phase.name, optimizer, at_end)
            if config.sample_every and self.step % config.sample_every == 0:
                self._sample_grid()

    def _objective(self, phase: Phase) -> nn.Module:
        """The losses of a stage, as a module from (x, t, target, y) to its terms."""
        if phase.name == "backbone":
            return BackboneObjective(self.model)
        return ExitsObjective(self.model, self.config.strategy == "frozen", self.config.method.losses())

    def _losses(self, objective: nn.Module, stage: Stage) -> dict[str, Tensor]:
        """The loss terms of this step's batch, and their sum `total`."""
        if self.data is None:
            points = points_at(self.config, self.model, self.schedule, self.step, self.procs)
            with training_precision(self.device, self.config.precision):
                return objective(points.x, points.t, None, points.labels)
        batch = batch_at(self.config, stage, self.data, self.schedule, self.step, self.procs, self.labels)
        t, noise = batch.t.to(self.device), batch.noise.to(self.device)
        y = None if batch.labels is None else batch.labels.to(self.device)
        x0 = to_model_range(batch.images.to(self.device))
        x = self.schedule.add_noise(x0, t, noise)
        target = training_target(self.config.prediction, x0, noise, self.schedule.alpha_bar_at(t))
        with training_precision(self.device, self.config.precision):
            return objective(x, t, target, y)

    @torch.no_grad()
    def _update_ema(self, stage_step: int) -> None:
        decay = min(self.config.ema, (1 + stage_step) / (10 + stage_step))
        pairs = [(e, p) for e, p in zip(self.ema.parameters(), self.model.parameters(), strict=True) if p.requires_grad]
        torch._foreach_lerp_([e for e, _ in pairs], [p for _, p in pairs], 1 - decay)

    def _weights(self) -> list[Tensor]:
        """All floating-point values that a checkpoint and the resume file store."""
        states = [*self.ema.state_dict().values(), *self.model.state_dict().values()]
        return [value for value in states if value.is_floating_point()]

    @property
    def is_main(self) -> bool:
        return self.procs.rank == 0

    @property
    def images_seen(self) -> int:
        """Images that trained the backbone, including those of the initial checkpoint."""
        first, config = self.config.backbone.steps, self.config
        images = min(self.step, first) * config.backbone.batch_size
        if config.strategy != "frozen":
            images += max(0, self.step - first) * config.exits.batch_size
        return self.images_before + images

    def _progress(self, phase: Phase) -> Iterator[int]:
        """The remaining steps of a stage, with a progress bar in images."""
        size = phase.stage.batch_size
        bar = tqdm(
            desc=f"{self.preset} · {phase.name}",
            initial=(self.step - phase.first) * size,
            total=phase.stage.steps * size,
            unit="images",
            unit_scale=True,
            disable=not self.is_main,
            mininterval=1,
        )
        with bar:
            for step in range(self.step, phase.last):
                yield step
                bar.update(size)

    def _save(self, stage: str, optimizer: Optimizers, end_of_stage: bool) -> None:
        """Write a checkpoint of the averaged weights, then the resume file."""
        self.files.write_checkpoint(self.ema, self.schedule, self.step, self.images_seen, stage, end_of_stage)
        self.files.write_resume(
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
        """Write 16 images of the averaged weights: DDIM, 50 steps, seed 0, all classes in turn."""
        self.ema.eval()
        classes = None if self.labels is None else range(int(self.labels.max()) + 1)
        *_, last = sample(self.ema, num_samples=16, steps=50, schedule=self.schedule, classes=classes)
        self.files.write_grid(self.step, last.x)
