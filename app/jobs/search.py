"""A search for plans, and the measurement of one, as jobs: they are kept, since their results are on disk."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from app.jobs.queue import Job, Session
from deediff.errors import UserError
from deediff.plans import Plan

MISSING = "A search needs Optuna, which is not installed: pip install 'deediff[search]'"


def why_no_search() -> str | None:
    """Why no search can run; None where one can."""
    return None if importlib.util.find_spec("optuna") is not None else MISSING


class SearchJob(Job):
    """Searches plans for a run. A cancelled job keeps its trials: the same search resumes them.

    Raises UserError at once when Optuna is missing.
    """

    kept = True

    def __init__(self, session: Session, run: Path, choices: str, minutes: float):
        if (missing := why_no_search()) is not None:
            raise UserError(missing)
        super().__init__(session, f"search plans for {run.name} ({choices}, {minutes:g} minutes)")
        self.folder, self.choices, self.minutes = run, choices, minutes

    def work(self) -> None:
        from deediff.search import SearchState, search  # imports torch-fidelity, which takes seconds

        def on_state(state: SearchState) -> None:
            seconds = round(60 * self.minutes)
            best = ", ".join(f"{budget:g}: {value:.2f}" for budget, (value, _) in state.best.items())
            stage = state.task if state.task != "search" else f"{state.trials} trials; best by evaluations: {best}"
            self.progress(min(seconds, round(seconds - max(0.0, state.seconds_left))), seconds + 1, stage)

        search(self.folder, choices=self.choices, minutes=self.minutes, on_state=on_state, cancelled=self.stopped)
        self.progress(1, 1)


class MeasureJob(Job):
    """Measures a plan beside a rival, and writes it to the run's plans. Raises UserError at once for a bad name."""

    kept = True

    def __init__(self, session: Session, run: Path, name: str, plan: Plan, rival: Plan):
        if not re.fullmatch(r"[\w.+=-]{1,120}", name) or name.startswith("."):
            raise UserError(f"“{name}” is not a valid name of a plan: use letters, digits and . _ + = -")
        super().__init__(session, f"measure plan {name} of {run.name}")
        self.folder, self.name, self.plan, self.rival = run, name, plan, rival

    def work(self) -> None:
        from deediff.quality.progress import Progress
        from deediff.search import measure_plan  # imports torch-fidelity, which takes seconds

        progress = Progress(lambda stage, done, total: self.progress(done, total, stage), self.stopped)
        measure_plan(self.folder, self.name, self.plan, self.rival, progress=progress)
        self.progress(1, 1)
