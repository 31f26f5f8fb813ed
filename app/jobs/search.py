"""A search for plans as a job: it is kept, since its study and its plans are on disk."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from app.jobs.queue import Job, Session
from deediff.errors import UserError

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
            stage = state.task if state.task != "search" else f"{state.trials} trials"
            self.progress(min(seconds, round(seconds - max(0.0, state.seconds_left))), seconds + 1, stage)

        search(self.folder, choices=self.choices, minutes=self.minutes, on_state=on_state, cancelled=self.stopped)
        self.progress(1, 1)
