"""`deediff search`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

from tqdm import tqdm
from tyro.conf import Positional, arg

from deediff.cli.command import Command, Count, Flag, Result, defaults_to, one_of
from deediff.quality.metrics import METRICS
from deediff.quality.progress import Progress
from deediff.search import SearchSettings, SearchState, measure_steps, search
from deediff.search.space import Choices
from deediff.settings import Device

METRIC_HELP = f"A distance: {', '.join(name for name, metric in METRICS.items() if not metric.share)}."
NOTE = (
    "evaluations: cost of one image in evaluations of the full network. searched: on the noise by which the plan was "
    "chosen; the other columns: on other noise. Plans are in RUN/plans, everything in RUN/front.json."
)
STEPS_NOTE = (
    "made_full: the full network in place of this step; left_out: the plan without it. Distances are the changed "
    "plan's minus the plan's, at equal noise that was not used for choosing; below 0 the change improves the images."
)


@dataclass(frozen=True, kw_only=True)
class Search(Command):
    """Search sampling plans for a run, and validate the best of each budget with noise not used for choosing.

    A plan pays for an fd-pixels that is worse than the full network's in 10 uniform steps.

    The study is kept in RUN/search; the same command resumes it.
    """

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run folder."""
    choices: Annotated[str, one_of(get_args(Choices))] = "all"
    """full: timesteps only; ends: also a start without the network, and a last step that reuses the prediction;
    all: every exit, readout and network at every step."""
    minutes: float = 20.0
    """Time for the search; validation comes on top."""
    metric: Annotated[str | None, arg(help=METRIC_HELP), defaults_to("the fd- metric of the data set")] = None
    reference: Annotated[str | None, defaults_to("the training data set")] = None
    """cifar10-train, mnist-train, … or a folder of images."""
    data_root: Annotated[Path | None, defaults_to("a cache folder")] = None
    """Folder with the data set in torchvision's layout."""
    weights: Annotated[Path | None, defaults_to("shipped, found or downloaded")] = None
    """Weights of an extractor, or a folder of such files."""
    seed: int = 0
    """Plans are chosen with noise of seed 2·SEED and validated with that of 2·SEED + 1."""
    batch_size: Count = 64
    """Images per batch."""
    storage: Annotated[str | None, defaults_to("SQLite in RUN/search")] = None
    """URL of an Optuna storage, for several processes or machines."""
    budgets: Annotated[tuple[float, ...], defaults_to("2, 3, … 10", "FLOAT [FLOAT ...]")] = SearchSettings.budgets
    """Evaluations of the full network; the best plan within each is validated."""
    validate_only: Flag = False
    """Validate the best plans of the study as it is."""
    steps_of: Annotated[str | None, defaults_to("none")] = None
    """In place of a search: measure this plan with each step made full, and with each step left out."""
    device: Device = "auto"
    """auto: CUDA if available, else MPS, else the CPU."""

    def run(self) -> Result:
        """Write the plans and front.json."""
        names = (
            "choices",
            "minutes",
            "metric",
            "reference",
            "data_root",
            "weights",
            "seed",
            "batch_size",
            "storage",
            "budgets",
        )
        fields: dict[str, Any] = {name: getattr(self, name) for name in (*names, "device")}
        with search_progress() as on_state:
            settings = SearchSettings(**fields)
            if self.steps_of is not None:
                progress = Progress(lambda task, done, total: on_state(SearchState(0, 0, 0, task=f"{task} {done}")))
                rows = measure_steps(self.folder, self.steps_of, settings, progress)
                return {"plan": self.steps_of, "steps": [_changes(row) for row in rows], "note": STEPS_NOTE}
            only: Any = "validation" if self.validate_only else None
            found = search(self.folder, settings, on_state=on_state, only=only)
        front = found[self.choices]
        return {
            "plans": [_row(point) for point in front["points"]],
            "uniform": [_row(point) for point in found["uniform"]["points"]],
            "origins": [{"proposed by": name, **counts} for name, counts in front["origins"].items()],
            **{key: front[key] for key in ("trials", "seconds", "rank_correlations", "validation_seconds")},
            "note": NOTE,
        }


def _changes(row: dict[str, Any]) -> dict[str, Any]:
    """One step: the distances' change, by columns."""
    found: dict[str, Any] = {"timestep": row["timestep"], "step": row["step"]}
    for change in ("made_full", "left_out"):
        for name, value in (row[change] or {}).items():
            found[f"{change}: {name}"] = value
    return found


def _row(point: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"plan": point["plan"], "evaluations": point["evaluations"]}
    row |= point["metrics"]
    return row | {"searched": point.get("searched", {}).get("value"), "steps": point["steps"]}


EVERY = 60  # seconds between lines of progress where there is no terminal


@contextmanager
def search_progress() -> Iterator[Callable[[SearchState], None]]:
    """Trials, the best per budget, the time left: on a terminal in one line that changes, else in a line a minute."""
    last = -math.inf
    with tqdm(unit="s", disable=None, bar_format="{desc}") as bar:

        def on_state(state: SearchState) -> None:
            nonlocal last
            bar.set_description_str(_state(state))
            if bar.disable and time.monotonic() - last >= EVERY:
                last = time.monotonic()
                print(_state(state), file=sys.stderr, flush=True)

        yield on_state


def _state(state: SearchState) -> str:
    if state.task != "search":
        return state.task
    found = f"{state.trials} trials, {max(state.seconds_left, 0) / 60:.1f} min left"
    for images in sorted({count for _, count in state.best.values()}, reverse=True):
        best = " ".join(f"{budget:g}:{value:.2f}" for budget, (value, count) in state.best.items() if count == images)
        found += f"; best per budget of {images} images {best}"
    return found
