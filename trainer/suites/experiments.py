"""Runs, traces and qualities at one scale, made when first needed and kept."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deediff.calibration.checkpoint import CalibrationSettings, calibrate_checkpoint
from deediff.calibration.file import calibration_file
from deediff.checkpoints import find_checkpoint
from deediff.json_files import read_json, write_json
from deediff.quality.evaluate import Evaluator
from deediff.quality.metrics import expand
from deediff.quality.progress import Progress
from deediff.quality.results import Quality, read_quality
from deediff.recording.job import sample_to_trace
from deediff.sampling.sampler import Step
from deediff.settings import SamplingSettings
from deediff.storage import write_atomically
from deediff.traces.reader import Trace, read_trace
from trainer.config import Method, Precision, TrainConfig
from trainer.loop import Training
from trainer.suites.scales import SCALES
from trainer.suites.tables import Strategy


def precision_of(run: Path) -> Precision | None:
    """The precision of a run's training; None without a run, "auto" where it is not recorded."""
    file = run / "run.json"
    return (read_json(file).get("config") or {}).get("precision", "auto") if file.exists() else None


@dataclass
class Experiments:
    """Trains, samples, calibrates and evaluates at one scale, in one folder; finished work is reused."""

    scale_name: str  # of SCALES
    out: Path
    data_root: Path | None = None
    device: str = "auto"
    precision: Precision = "auto"  # of new trainings
    _evaluator: Evaluator = field(init=False)
    _runs: dict[str, Path] = field(default_factory=dict)  # by label

    def __post_init__(self) -> None:
        self.scale = SCALES[self.scale_name]
        self._bar = tqdm(disable=True)
        self._evaluator = Evaluator(
            self.scale.metrics,
            self.scale.reference,
            data_root=self.data_root,
            device=self.device,
            progress=Progress(self._on_progress),
        )

    @property
    def problems(self) -> list[str]:
        """Reasons for missing qualities."""
        return self._evaluator.problems

    def train(self, label: str, config: TrainConfig) -> Path:
        """The run with this label, trained if necessary."""
        if label not in self._runs:
            where: dict[str, Any] = {"data_root": self.data_root, "device": self.device}
            family = self.scale.init.name if self.scale.init is not None else self.scale_name
            folder = self.out / f"{family}-{label}"
            precision = precision_of(folder) or self.precision
            training = Training("suite", replace(config, out=folder, precision=precision, **where))
            self._runs[label] = training.folder if training.files.is_done else training.run()
        return self._runs[label]

    def backbone(self) -> Path:
        """The run with the backbone of all methods: the scale's `init`, copied into the folder, or trained here."""
        init = self.scale.init
        if init is None:
            return self.train("backbone", self.plain(self.scale.config))
        folder = self.out / init.name
        if not (folder / "run.json").exists():
            source = find_checkpoint(init)
            for file in (source, source.with_suffix(".json")):
                write_atomically(folder / "checkpoints" / file.name, file.read_bytes())
            write_json(folder / "run.json", read_json(init / "run.json"))
        return folder

    def plain(self, config: TrainConfig) -> TrainConfig:
        """The configuration of a network without exits, trained on as many images as the backbone."""
        steps = config.backbone.steps
        if self.scale.init is not None:
            images = read_json(find_checkpoint(self.backbone()).with_suffix(".json"))["images_seen"]
            steps = round(images / config.backbone.batch_size)
        return replace(config, backbone=replace(config.backbone, steps=steps), exits=replace(config.exits, steps=0))

    def with_exits(self, method: Method, strategy: Strategy) -> Path:
        """The run with these UEMs, heads and losses, trained if necessary."""
        if strategy == "frozen" and method == self.scale.init_method:
            return self.backbone()
        config = replace(self.scale.config, method=method, strategy=strategy)
        if strategy == "scratch":
            steps = self.plain(self.scale.config).backbone.steps + config.exits.steps
            config = replace(config, exits=replace(config.backbone, steps=steps))
        else:
            config = replace(config, init=self.backbone(), backbone=replace(config.backbone, steps=0))
        return self.train(f"{_label(method)}-{strategy}", config)

    def sample(self, run: Path, label: str, policy: str, steps: int | None = None, **settings: Any) -> Trace:
        """The trace with this label, sampled if necessary; `settings` override the scale's SamplingSettings."""
        s, folder = self.scale, run / "traces" / re.sub(r"[^a-z0-9.]+", "-", label.lower())
        fields: dict[str, Any] = {"policy": policy, "solver": s.solver, "steps": steps or s.steps}
        fields |= {"num_samples": s.num_samples, "batch_size": s.batch_size, **settings}
        with tqdm(unit="step", desc=label, disable=None, mininterval=0.5) as bar:

            def on_step(step: Step) -> None:
                bar.total = step.total
                bar.update()

            sample_to_trace(run, folder, SamplingSettings(**fields), device=self.device, on_step=on_step)
        return read_trace(folder)

    def calibrate(self, run: Path) -> None:
        """Calibrate the run's checkpoint, if that is not done yet."""
        if not calibration_file(find_checkpoint(run)).exists():
            images, bins = self.scale.calibration
            calibrate_checkpoint(run, CalibrationSettings(images, bins, data_root=self.data_root), self.device)

    def quality(self, trace: Trace) -> dict[str, Quality]:
        """The scale's metrics of a trace by name, measured if necessary."""
        if not self.scale.metrics:
            return {}
        if not set(expand(self.scale.metrics)) <= self._measured(trace).keys():
            with tqdm(unit="images", desc="evaluate", disable=None, mininterval=0.5) as self._bar:
                self._evaluator.evaluate(trace.path)
        return self._measured(trace)

    def _measured(self, trace: Trace) -> dict[str, Quality]:
        images = int(trace.summary.samples)
        return {quality.metric: quality for quality in read_quality(trace.path) if quality.images == images}

    def _on_progress(self, description: str, done: int, total: int) -> None:
        self._bar.desc, self._bar.total = description, total
        self._bar.update(done - self._bar.n)


def _label(method: Method) -> str:
    """The differences between a method and the default, as part of a folder name."""
    words: list[str] = [method.uem]
    if method.scope != "layer":
        words.append(method.scope)
    for name, default in vars(Method()).items():
        value = getattr(method, name)
        if value != default and name not in ("uem", "scope"):
            words.append(f"{len(value)}-uems" if name == "layers" else name.replace("_", "-"))
    return "-".join(words)
