"""Trained runs and their traces at one scale, made when they are asked for and kept: nothing is done twice."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from deediff.calibration.checkpoint import calibrate_checkpoint
from deediff.calibration.file import calibration_file
from deediff.checkpoints import find_checkpoint
from deediff.json_files import read_json, write_json
from deediff.models import UViTConfig
from deediff.quality.evaluate import Evaluator
from deediff.quality.metrics import expand
from deediff.quality.progress import Progress
from deediff.quality.results import Quality, read_quality
from deediff.recording.job import sample_to_trace
from deediff.sampling.sampler import Step
from deediff.settings import SamplingSettings
from deediff.storage import write_atomically
from deediff.traces.reader import Trace, read_trace
from trainer.loop import Training
from trainer.presets import PRESETS, Method, Precision, Stage, TrainConfig
from trainer.suites.tables import Strategy


@dataclass(frozen=True)
class Scale:
    """How large everything is. Thresholds are those of the tables, given in units of this scale."""

    config: TrainConfig  # backbone and exits
    shallow: TrainConfig  # DuoDiff's other network
    solver: str
    steps: int
    num_samples: int
    batch_size: int
    thresholds: dict[float, float]  # published τ → the τ that is sampled here
    metrics: tuple[str, ...]  # of the images, as `deediff evaluate --metrics`; none: they are not evaluated
    init: Path | None = None  # a backbone to start from, instead of training one
    init_method: Method | None = None  # whose exits it has already, trained on it frozen
    calibration: tuple[int, int] = (256, 20)  # images and timesteps
    reference: str | None = None  # real images; None: those of the training


_DIGITS = PRESETS["mnist_tiny"][1]
_TOY_MODEL = UViTConfig(in_chans=1, patch_size=8, embed_dim=32, num_heads=2, depth=4)
_TOY = replace(
    _DIGITS,
    model=_TOY_MODEL,
    backbone=Stage(steps=4, batch_size=4), exits=Stage(steps=4, batch_size=4), start="official",
    sample_every=0, log_every=1,
)  # fmt: skip
_TOY_SHALLOW = replace(_TOY, model=replace(_TOY_MODEL, depth=2), exits=Stage(steps=0))

SCALES: dict[str, Scale] = {
    "cpu": Scale(  # the shipped backbone, 1 024 digits
        replace(_DIGITS, sample_every=0), replace(PRESETS["mnist_shallow"][1], sample_every=0),
        "ddim", 50, 1024, 128, {0.05: 0.08, 0.075: 0.1, 0.1: 0.12}, ("fd-mnist",),
        init=Path("runs/mnist_tiny"), init_method=Method(),
    ),
    "paper": Scale(
        PRESETS["uvit_small"][1], PRESETS["uvit_shallow"][1],
        "ddpm", 1000, 1024, 128, {0.05: 0.05, 0.075: 0.075, 0.1: 0.1}, ("fid", "kid", "fd-cifar"),
    ),
    "toy": Scale(_TOY, _TOY_SHALLOW, "ddim", 6, 4, 4, {0.05: 0.3, 0.075: 0.5, 0.1: 0.7}, (), calibration=(8, 3)),
}  # fmt: skip


def precision_of(run: Path) -> Precision | None:
    """In which a run was trained so far; None when it was not, or does not say."""
    file = run / "run.json"
    return (read_json(file).get("config") or {}).get("precision", "auto") if file.exists() else None


@dataclass
class OnDemand:
    """Trains, samples, calibrates and evaluates at one scale, below one folder."""

    scale_name: str  # of SCALES
    out: Path
    data_root: Path | None = None
    device: str = "auto"
    precision: Precision = "auto"  # of trainings that are still to come
    _evaluator: Evaluator = field(init=False)
    _runs: dict[str, Path] = field(default_factory=dict)  # asked for so far

    def __post_init__(self) -> None:
        self.scale = SCALES[self.scale_name]
        self._bar = tqdm(disable=True)
        self._evaluator = Evaluator(
            self.scale.metrics, self.scale.reference, data_root=self.data_root, device=self.device,
            progress=Progress(self._on_progress),
        )  # fmt: skip

    @property
    def problems(self) -> list[str]:
        """What could not be evaluated, in sentences."""
        return self._evaluator.problems

    def train(self, label: str, config: TrainConfig) -> Path:
        """The run of this label."""
        if label not in self._runs:
            where: dict[str, Any] = {"data_root": self.data_root, "device": self.device}
            family = self.scale.init.name if self.scale.init is not None else self.scale_name
            folder = self.out / f"{family}-{label}"
            precision = precision_of(folder) or self.precision
            training = Training("suite", replace(config, out=folder, precision=precision, **where))
            self._runs[label] = training.folder if training.files.is_done else training.run()
        return self._runs[label]

    def backbone(self) -> Path:
        """The backbone that all others start from: this scale's own, or the one it starts from, copied if need be."""
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
        """A network without exits, trained on as many images as the backbone."""
        steps = config.backbone.steps
        if self.scale.init is not None:
            images = read_json(find_checkpoint(self.backbone()).with_suffix(".json"))["images_seen"]
            steps = round(images / config.backbone.batch_size)
        return replace(config, backbone=replace(config.backbone, steps=steps), exits=replace(config.exits, steps=0))

    def with_exits(self, method: Method, strategy: Strategy) -> Path:
        """The run with these UEMs, heads and losses."""
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
        """The trace of this label, with everything else as the scale has it; settings: fields of SamplingSettings."""
        s, folder = self.scale, run / "traces" / re.sub(r"[^a-z0-9.]+", "-", label.lower())
        fields = {"num_samples": s.num_samples, "solver": s.solver, "steps": steps or s.steps, **settings}
        with tqdm(unit="step", desc=label, disable=None, mininterval=0.5) as bar:

            def on_step(step: Step) -> None:
                bar.total = step.total
                bar.update()

            wanted = SamplingSettings(policy=policy, batch_size=s.batch_size, **fields)
            sample_to_trace(run, folder, wanted, device=self.device, on_step=on_step)
        return read_trace(folder)

    def calibrate(self, run: Path) -> None:
        """u against the real error, beside the run's checkpoint."""
        if not calibration_file(find_checkpoint(run)).exists():
            images, bins = self.scale.calibration
            calibrate_checkpoint(run, images, bins, data_root=self.data_root, device=self.device)

    def quality(self, trace: Trace) -> dict[str, Quality]:
        """The metrics of the scale, by name."""
        if not self.scale.metrics:
            return {}
        if not set(expand(self.scale.metrics)) <= self._measured(trace).keys():
            with tqdm(unit="images", desc="evaluate", disable=None, mininterval=0.5) as self._bar:
                self._evaluator.evaluate(trace.path)
        return self._measured(trace)

    def _measured(self, trace: Trace) -> dict[str, Quality]:
        images = int(trace.summary.samples)
        return {quality.metric: quality for quality in read_quality(trace.path) if quality.images == images}

    def _on_progress(self, what: str, done: int, total: int) -> None:
        self._bar.desc, self._bar.total = what, total
        self._bar.update(done - self._bar.n)


def _label(method: Method) -> str:
    """What distinguishes a method from the default, as a folder's name."""
    words: list[str] = [method.uem]
    if method.scope != "layer":
        words.append(method.scope)
    for name, default in vars(Method()).items():
        value = getattr(method, name)
        if value != default and name not in ("uem", "scope"):
            words.append(f"{len(value)}-uems" if name == "layers" else name.replace("_", "-"))
    return "-".join(words)
