"""A search from beginning to end: propose, sample, measure, until the time is over; then validate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.devices import choose_device
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.quality.progress import Progress
from deediff.sampling.sampler import NotFinite
from deediff.search.cache import FeatureCache
from deediff.search.front import BUDGETS, best_of, chosen, non_dominated, to_refine
from deediff.search.judge import Judge, make_judge
from deediff.search.proxies import Proxies, best_proxy, make_proxies, promising, rank_correlations
from deediff.search.report import write_front
from deediff.search.space import Choices, make_space
from deediff.search.start import start_plans
from deediff.search.study import Study, Tried, default_storage, import_optuna
from deediff.search.validate import Validation

EXPLORED = 0.1  # share of the plans that are measured although their proxy is bad


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and how. Raises UserError for values out of range."""

    choices: Choices = "all"
    minutes: float = 20.0
    metric: str | None = None
    reference: str | None = None
    seed: int = 0
    batch_size: int = 64
    device: str = "auto"
    storage: str | None = None
    data_root: Path | None = None
    weights: Path | None = None
    moves: float = 0.5
    counts: tuple[int, int, int] = (64, 256, 1024)
    validation_images: int = 2048

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise UserError(f"minutes is {self.minutes:g}, expected more than 0")
        if self.seed < 0:
            raise UserError(f"the seed is {self.seed}, expected 0 or more")

    @property
    def search_seed(self) -> int:
        """Of the noise on which plans are chosen: even …"""
        return 2 * self.seed

    @property
    def validation_seed(self) -> int:
        """… and of the noise on which they are validated: odd, so no search ever saw it."""
        return 2 * self.seed + 1


@dataclass(frozen=True)
class SearchState:
    """Progress of a search."""

    trials: int
    seconds: float
    seconds_left: float
    best: dict[int, float] = field(default_factory=dict)  # per budget: the smallest distance so far
    task: str = "search"


def search(
    run: str | Path,
    settings: SearchSettings | None = None,
    on_state: Callable[[SearchState], None] | None = None,
    validate: bool = True,
    search_first: bool = True,
    **fields: Any,
) -> dict[str, Any]:
    """Search plans for a run, validate the best, and write them to `RUN/plans` and `RUN/front.json`.

    Returns the content of front.json. Raises UserError for bad input.
    """
    settings = settings or SearchSettings(**fields)
    run = Path(run)
    import_optuna()
    model, info = load_checkpoint(find_checkpoint(run), choose_device(settings.device))
    schedule = Schedule(**info["schedule"])
    space = make_space(settings.choices, model, schedule, run)
    report = on_state or (lambda state: None)
    progress = Progress(lambda task, done, total: report(SearchState(0, 0, 0, task=f"{task} {done}/{total}")))
    judge = make_judge(
        model,
        schedule,
        settings.metric,
        run,
        settings.reference,
        settings.batch_size,
        settings.data_root,
        settings.weights,
        progress,
    )
    cache = FeatureCache(judge, run / "search")
    identity = {"checkpoint": info["sha256"], "metric": judge.metric, "reference": judge.reference.key}
    identity |= {"counts": list(settings.counts)}
    storage = settings.storage or default_storage(run)
    study = Study(space, storage, f"{settings.choices}-{judge.metric}", settings.search_seed, identity, settings.moves)
    proxies = make_proxies(judge, settings.search_seed, settings.counts[0], run / "search")
    if search_first:
        study.enqueue(start_plans(space, schedule, run))
        Searching(judge, study, proxies, settings, cache, report).run()
    tried = study.tried()
    seconds = study.seconds
    summary = {
        "trials": len(tried),
        "seconds": round(seconds, 1),
        "seed": settings.search_seed,
        "rank_correlations": rank_correlations(tried, settings.counts[1]),
    }
    if not validate:
        return summary
    validation = Validation(cache, settings.validation_seed, settings.validation_images)
    task = "validation: "
    return write_front(
        validation,
        tried,
        settings.choices,
        settings.counts[2],
        run,
        summary,
        lambda what, done, total: report(SearchState(len(tried), seconds, 0.0, task=f"{task}{what} {done}/{total}")),
    )


@dataclass(eq=False)
class Searching:
    """The loop over trials."""

    judge: Judge
    study: Study
    proxies: Proxies
    settings: SearchSettings
    cache: FeatureCache
    report: Callable[[SearchState], None]

    def run(self) -> None:
        """Try plans until the time is over."""
        begun, (_, coarse, fine) = time.monotonic(), self.settings.counts
        while (seconds := time.monotonic() - begun) < 60 * self.settings.minutes:
            tried = self.study.tried()
            self._show(tried, seconds)
            started = time.monotonic()
            if not self.study.waiting and (plan := to_refine(tried, coarse, fine)) is not None:
                self._refine(plan)
            else:
                self._try(tried)
            self.study.add_seconds(time.monotonic() - started)
        while (plan := to_refine(tried := self.study.tried(), coarse, fine)) and not chosen(tried, fine):
            self._refine(plan)
        self._show(self.study.tried(), seconds)

    def _refine(self, plan: Tried) -> None:
        """The metric of more images for a plan that was tried."""
        fine = self.settings.counts[-1]
        features = self.cache.features(plan.plan, self.settings.search_seed, fine)
        self.study.refine(plan, fine, self.judge.distance(features))

    def _try(self, tried: Sequence[Tried]) -> None:
        """One trial: a few images, and if these are promising the metric of more."""
        few, coarse, fine = self.settings.counts
        front = [plan.plan for count in (fine, coarse) for plan in non_dominated(tried, count)]
        trial, plan = self.study.propose(front)
        seed = self.settings.search_seed
        try:
            cost = self.judge.cost(plan)
            draw = self.judge.draw(plan, seed, range(few))
        except NotFinite:
            self.study.fail(trial)
            return
        found, distances = self.proxies.measure(draw), dict[int, float]()
        rng = np.random.default_rng([seed, trial.number])
        name = best_proxy(tried, coarse)
        if promising(found, cost, tried, name) or rng.random() < EXPLORED:
            distances[coarse] = self.judge.distance(self.cache.features(plan, seed, coarse, draw.features))
        self.study.finish(trial, cost, distances, found)

    def _show(self, tried: Sequence[Tried], seconds: float) -> None:
        _, coarse, fine = self.settings.counts
        best = {}
        for budget in BUDGETS:
            found = best_of(tried, budget, fine) or best_of(tried, budget, coarse)
            if found is not None:
                best[budget] = found.distances.get(fine, found.distances[coarse])
        self.report(SearchState(len(tried), seconds, 60 * self.settings.minutes - seconds, best))
