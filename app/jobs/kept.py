"""Jobs whose results are kept on disk: closing their tab does not cancel them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from app.jobs.queue import Job, Session
from deediff.analysis.drift import measure_drift
from deediff.calibration.checkpoint import CalibrationSettings, calibrate_checkpoint, training_batches
from deediff.calibration.drift import drift_file
from deediff.calibration.gaussian import GAUSSIAN_IMAGES, fit_gaussian, gaussian_file
from deediff.checkpoints import load_checkpoint
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.policies import make_policy
from deediff.quality.results import Quality
from deediff.recording.job import sample_to_trace
from deediff.sampling import Step
from deediff.settings import SamplingSettings

BATCH = 64


class Stopped(Exception):
    """Ends the work of a cancelled job from within."""


class SaveJob(Job):
    """Samples a new trace of the run: the same seeds, so the same images, with every decision.

    Raises UserError at once for a name that is taken or not valid, and for an invalid policy. A cancelled job removes
    its folder.
    """

    kept = True

    def __init__(self, session: Session, run: Path, checkpoint: Path, name: str, settings: SamplingSettings):
        if not re.fullmatch(r"[\w.+=-]{1,120}", name) or name.startswith("."):
            raise UserError(f"“{name}” is not a valid name of a trace: use letters, digits and . _ + = -")
        super().__init__(session, f"save {settings.num_samples} images as {name}")
        self.folder, self.settings = run / "traces" / name, settings
        self._checkpoint = checkpoint
        make_policy(settings.policy)
        self._check_free()

    def _check_free(self) -> None:
        if self.folder.exists():
            raise UserError(f"a trace {self.folder.name} exists already: choose another name")

    def work(self) -> None:
        self._check_free()  # another job may have taken the name while this one waited
        settings = replace(self.settings, batch_size=min(BATCH, self.settings.num_samples))
        try:
            sample_to_trace(self._checkpoint, self.folder, settings, on_step=self._on_step, cancelled=self.stopped)
        finally:
            if self.stopped() and self.status.share < 1:
                shutil.rmtree(self.folder, ignore_errors=True)

    def _on_step(self, step: Step) -> None:
        self.progress(step.done, step.total)


class CalibrateJob(Job):
    """Compares u with the error on held-out images; measures drift and fits a Gaussian, unless that has been done.

    As `deediff calibrate CHECKPOINT` does.
    """

    kept = True

    def __init__(self, session: Session, checkpoint: Path):
        super().__init__(session, f"calibrate {checkpoint.parent.parent.name}, checkpoint {checkpoint.stem}")
        self.folder = checkpoint

    def work(self) -> None:
        if not (drift := drift_file(self.folder)).exists():  # first: it needs no images
            model, info = load_checkpoint(self.folder)
            measure_drift(model, Schedule(**info["schedule"]), on_step=self._on_step).save(drift)
        gaussian = gaussian_file(self.folder)
        if not gaussian.exists():
            source = {"source": "data", "checkpoint": self.folder.name}
            fit_gaussian(self._batches(), info=source).save(gaussian)
        if read_json(self.folder.with_suffix(".json")).get("uem") is not None:
            calibrate_checkpoint(self.folder, CalibrationSettings(), on_batch=self._on_batch)

    def _on_step(self, step: Step) -> None:
        self._check()
        self.progress(step.done, step.total, "full trajectories")

    def _batches(self) -> Iterator[Tensor]:
        done = 0
        for batch in training_batches(self.folder, GAUSSIAN_IMAGES):
            self._check()
            done += len(batch)
            self.progress(done, GAUSSIAN_IMAGES + 1, "statistics of the images")
            yield batch

    def _on_batch(self, done: int, total: int) -> None:
        self._check()
        self.progress(done, total, "errors of the exits")

    def _check(self) -> None:
        """Ends the work of a cancelled job."""
        if self.stopped():
            raise Stopped


class EvaluateJob(Job):
    """Evaluates a trace's images against real ones; writes quality.json."""

    kept = True

    def __init__(self, session: Session, folder: Path, reference: str | None = None, metrics: Sequence[str] = ()):
        super().__init__(session, f"evaluate {folder.name}")
        self.folder, self.reference = folder, reference  # real images; None: the run's training images
        self.metrics = metrics  # names of deediff.quality.metrics.METRICS; none: the included one of the data set
        self.results: list[Quality] = []
        self.problems: list[str] = []  # sentences about metrics that could not be computed

    def work(self) -> None:
        from deediff.quality.evaluate import Evaluator  # imports torch-fidelity, which takes seconds
        from deediff.quality.progress import Progress

        progress = Progress(lambda stage, done, total: self.progress(done, total, stage), self.stopped)
        evaluator = Evaluator(self.metrics, self.reference, progress=progress)
        self.results = evaluator.evaluate(self.folder)
        self.problems = evaluator.problems
