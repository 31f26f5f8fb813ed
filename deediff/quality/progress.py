"""Progress reports and cancellation of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class EvaluationCancelled(Exception):
    """Raised inside an evaluation that was cancelled."""


@dataclass
class Progress:
    """Callbacks of an evaluation."""

    on_progress: Callable[[str, int, int], None] | None = None  # task, done, total
    cancelled: Callable[[], bool] | None = None

    def report(self, task: str, done: int, total: int) -> None:
        """Raises EvaluationCancelled when `cancelled` returns True."""
        if self.cancelled is not None and self.cancelled():
            raise EvaluationCancelled
        if self.on_progress is not None:
            self.on_progress(task, done, total)
