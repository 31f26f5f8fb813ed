"""A search from beginning to end: propose, sample, measure, until the time is over; then validate."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.devices import choose_device
from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.plans.text import steps_to_text
from deediff.plans.trials import Trial, write_trials
from deediff.quality.progress import Progress
from deediff.sampling.sampler import NotFinite
from deediff.search.cache import FeatureCache
from deediff.search.front import best_of, best_plans, budget_of, chosen, origins, to_refine
from deediff.search.judge import make_judge
from deediff.search.proxies import Proxies, best_proxy, make_proxies, promising, rank_correlations
from deediff.search.report import plans_of_front, read_validated, write_front
from deediff.search.score import Score
from deediff.search.settings import SearchSettings, SearchState
from deediff.search.space import make_space
from deediff.search.start import start_plans
from deediff.search.study import Study, Tried, import_optuna
from deediff.search.validate import Validation

EXPLORED = 0.05  # share of the plans that are measured although their proxy is bad


def search(
    run: str | Path,
    settings: SearchSettings | None = None,
    *,
    on_state: Callable[[SearchState], None] | None = None,
    cancelled: Callable[[], bool] | None = None,  # called before each denoising step
    only: Literal["search", "validation"] | None = None,  # None: both, one after the other
    **fields: Any,  # of SearchSettings, e.g. choices="full", minutes=5
) -> dict[str, Any]:
    """Search plans for a run, validate the best, and write them to `RUN/plans` and `RUN/front.json`.

    The same call resumes the study of the run. A validation without a study measures the plans of front.json again.
    Returns the content of front.json; with only="search" its part
    about the search. Raises UserError for bad input, EvaluationCancelled when `cancelled` returns True.
    """
    import_optuna()
    run, settings = Path(run), replace(settings or SearchSettings(), **fields)
    if not run.is_dir():
        raise UserError(f"{run} is no run folder: a search keeps its study and its plans there")
    report = on_state or (lambda state: None)
    progress = Progress(lambda task, done, total: report(_task(f"{task}: {done} of {total}")), cancelled)
    model, info = load_checkpoint(find_checkpoint(run), choose_device(settings.device))
    schedule = Schedule(**info["schedule"])
    judge = make_judge(model, schedule, run, settings, progress)
    space, cache = make_space(settings.choices, model, schedule, run), FeatureCache(judge, run / "search")
    identity: dict[str, Any] = {"checkpoint": info["sha256"], "counts": list(settings.counts)}
    identity |= {distance.metric: distance.reference.key for distance in judge.distances}
    study = Study(space, settings, run, f"{settings.choices}-{judge.metric}", identity)
    validation = Validation(cache, settings.validation_seed, settings.validation_images)
    before = read_validated(run / "front.json", validation)  # raises before the search, not after it
    score = Score(cache, settings.search_seed)
    if only != "validation":
        report(_task("a solution in many steps, to compare plans with"))
        proxies = make_proxies(score, settings.counts[0])
        study.enqueue(start_plans(space, schedule, run))
        Searching(study, proxies, settings, report).run()
    tried, coarse, fine = study.tried(), *settings.counts[1:]
    if only == "validation" and not tried:  # as in a clone, which has the plans but not the study
        picked, summary = plans_of_front(before.get(settings.choices, {}), run, score, fine)
        return write_front(validation, picked, run, settings, summary, progress)
    measured = [plan for plan in tried if coarse in plan.distances]
    summary = {
        "trials": len(tried),
        "seconds": round(study.seconds, 1),
        "rank_correlations": rank_correlations(tried, coarse),
        "origins": origins(tried, coarse),
    }
    if only == "search":
        return summary
    trials = [Trial(plan.cost, plan.distances[coarse], steps_to_text(plan.plan.steps)) for plan in measured]
    write_trials(run, settings.choices, trials)
    return write_front(validation, chosen(tried, fine, settings.budgets), run, settings, summary, progress)


def _task(text: str) -> SearchState:
    return SearchState(0, 0.0, 0.0, task=text)


@dataclass(eq=False)
class Searching:
    """The loop over trials."""

    study: Study
    proxies: Proxies
    settings: SearchSettings
    report: Callable[[SearchState], None]

    def run(self) -> None:
        """Try plans until the time is over; then measure the best of each budget with more images."""
        begun, (_, coarse, fine), budgets = time.monotonic(), self.settings.counts, self.settings.budgets
        while (seconds := time.monotonic() - begun) < 60 * self.settings.minutes:
            tried = self.study.tried()
            self._show(tried, seconds)
            started = time.monotonic()
            if not self.study.waiting and (plan := to_refine(tried, coarse, fine, budgets)) is not None:
                self._refine(plan)
            else:
                self._try(tried)
            self.study.add_seconds(time.monotonic() - started)
        while plan := to_refine(self.study.tried(), coarse, fine, budgets):
            self._refine(plan)
        self._show(self.study.tried(), seconds)

    def _refine(self, plan: Tried) -> None:
        """The score of more images for a plan that was tried."""
        fine, score = self.settings.counts[-1], self.proxies.score
        self.study.refine(plan, fine, score(score.cache.features(plan.plan, score.seed, fine)))

    def _try(self, tried: Sequence[Tried]) -> None:
        """One trial: a few images, and if these are promising the score of more."""
        few, coarse, fine = self.settings.counts
        front = [plan.plan for count in (coarse, fine) for plan in best_plans(tried, count, self.settings.budgets)]
        trial, plan = self.study.propose(front)
        score = self.proxies.score
        judge, seed = score.cache.judge, score.seed
        try:
            cost = judge.cost(plan)
            if budget_of(cost, self.settings.budgets) is None:
                self.study.fail(trial)
                return
            draw = judge.draw(plan, seed, range(few))
        except NotFinite:
            self.study.fail(trial)
            return
        found, distances = self.proxies.measure(plan, draw), dict[int, float]()
        explored = np.random.default_rng([seed, trial.number]).random() < EXPLORED
        if explored or promising(found, cost, tried, best_proxy(tried, coarse), self.settings.budgets):
            distances[coarse] = score(score.cache.features(plan, seed, coarse, draw.features))
        self.study.finish(trial, cost, distances, found)

    def _show(self, tried: Sequence[Tried], seconds: float) -> None:
        _, coarse, fine = self.settings.counts
        best = dict[float, tuple[float, int]]()
        for budget in self.settings.budgets:
            for count in (coarse, fine):  # fine, where there is one
                if (found := best_of(tried, budget, count)) is not None:
                    best[budget] = found.distances[count], count
        self.report(SearchState(len(tried), seconds, 60 * self.settings.minutes - seconds, best))
