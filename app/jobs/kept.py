"""Jobs whose result stays on disk: they go on when the tab that asked for them is closed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.jobs.queue import Job, Session
from app.jobs.settings import LiveSettings
from deediff.errors import UserError
from deediff.policies import make_policy
from deediff.quality.results import Quality
from deediff.recording.job import sample_to_trace
from deediff.settings import Record, SamplingSettings

BATCH = 64


class SaveJob(Job):
    """Samples the settings into a new trace of the run: the same seeds, so the same images, with every decision.

    Raises UserError at once for a name that is taken or no name, and for a policy that means nothing.
    A cancelled one leaves nothing behind.
    """

    kept = True

    def __init__(
        self, session: Session, run: Path, checkpoint: Path, name: str, settings: LiveSettings, record: Record = "exit"
    ):
        if not re.fullmatch(r"[\w.+=-]{1,120}", name) or name.startswith("."):
            raise UserError(f"“{name}” is no name for a trace: use letters, digits and . _ + = -")
        super().__init__(session, f"save {settings.num_samples} images as {name}")
        self.folder, self.settings = run / "traces" / name, settings
        self._checkpoint, self._record = checkpoint, record
        make_policy(settings.policy)
        self._check_free()

    def _check_free(self) -> None:
        if self.folder.exists():
            raise UserError(f"there is a trace {self.folder.name} already: choose another name")

    def work(self) -> None:
        self._check_free()  # another job may have taken it meanwhile
        s = self.settings
        try:
            settings = SamplingSettings(
                policy=s.policy, solver=s.solver, steps=s.steps, num_samples=s.num_samples,
                batch_size=min(BATCH, s.num_samples), seed=s.seed, record=self._record,
            )  # fmt: skip
            on_step = lambda step: self.progress(step.done, step.total)  # noqa: E731
            sample_to_trace(self._checkpoint, self.folder, settings, on_step=on_step, cancelled=self.stopped)
        finally:
            if self.stopped() and self.status.share < 1:
                shutil.rmtree(self.folder, ignore_errors=True)


class EvaluateJob(Job):
    """Measures a trace's images against the real ones; the results stand in its quality.json."""

    kept = True

    def __init__(self, session: Session, folder: Path, reference: str | None = None, metrics: Sequence[str] = ()):
        super().__init__(session, f"evaluate {folder.name}")
        self.folder, self.reference = folder, reference  # real images; None: what the run was trained on
        self.metrics = metrics  # names of deediff.quality.metrics.METRICS; none: the one that ships and fits
        self.results: list[Quality] = []
        self.problems: list[str] = []  # what of them could not be measured, in sentences

    def work(self) -> None:
        from deediff.quality.evaluate import Evaluator  # brings torch-fidelity: seconds, and only here
        from deediff.quality.progress import Progress

        progress = Progress(lambda what, done, total: self.progress(done, total, what), self.stopped)
        evaluator = Evaluator(self.metrics, self.reference, progress=progress)
        self.results = evaluator.evaluate(self.folder)
        self.problems = evaluator.problems
