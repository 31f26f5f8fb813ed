"""The Optuna study of a search: two objectives, the cost and the distance, kept in SQLite or any other storage."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deediff.errors import UserError
from deediff.plans import Plan
from deediff.search.judge import plan_digest
from deediff.search.moves import change
from deediff.search.settings import SearchSettings
from deediff.search.space import Space

MISSING = "a search needs Optuna, which is not installed: pip install 'deediff[search]'"


@dataclass(frozen=True)
class Tried:
    """One plan of the study. Distances are of the search's seed."""

    number: int
    plan: Plan
    cost: float  # evaluations of the full network
    distances: dict[int, float] = field(default_factory=dict)  # number of images: the score
    proxies: dict[str, float] = field(default_factory=dict)
    origin: str = "sampler"  # start, move or sampler

    @cached_property
    def digest(self) -> str:
        """Of what the plan does."""
        return plan_digest(self.plan)


class Study:
    """Proposes plans, and keeps what was measured."""

    def __init__(self, space: Space, settings: SearchSettings, run: Path, name: str, identity: dict[str, Any]):
        """`identity` is what all distances of a study have in common.

        Raises UserError when Optuna is missing, or the storage cannot be opened or holds a search of another model.
        """
        self.space, self.seed, self.moves = space, settings.search_seed, settings.moves
        storage = settings.storage or _default_storage(run)
        # Every process proposes other plans: several may share the storage, and a resumed one must not repeat itself.
        process = uuid.uuid4()
        self._process, self._spent, self._rng = process.hex[:8], 0.0, np.random.default_rng(process.int)
        optuna = import_optuna()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        content = json.dumps([identity, space.names, space.least_steps, space.most_steps, self.seed], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        with warnings.catch_warnings(action="ignore"):  # `group` is experimental
            sampler = optuna.samplers.TPESampler(seed=int(self._rng.integers(2**31)), multivariate=True, group=True)
        name = f"{name}-{digest}"
        for last in (False, False, True):
            try:
                self._open(optuna, storage, name, sampler, identity["checkpoint"])
                break
            except UserError:
                raise
            except Exception as error:  # of SQLAlchemy and its drivers
                if last:
                    reason = " ".join(str(error).split())[:160]
                    raise UserError(
                        f"storage {storage} cannot be opened ({reason}): expected e.g. sqlite:///FILE"
                    ) from None
                time.sleep(1)  # another process may be creating the tables
        self.study.set_user_attr("identity", identity)
        with warnings.catch_warnings(action="ignore"):  # experimental, too
            self.study.set_metric_names(["evaluations", "distance"])

    def _open(self, optuna: Any, storage: str, name: str, sampler: Any, checkpoint: str) -> None:
        for other in optuna.get_all_study_names(storage):
            found = optuna.load_study(study_name=other, storage=storage).user_attrs.get("identity") or {}
            if found and found.get("checkpoint") != checkpoint:
                raise UserError(
                    f"{storage} holds a search of another checkpoint ({str(found.get('checkpoint'))[:12]}, "
                    f"expected {checkpoint[:12]}): name another --storage, or delete it"
                )
        directions = ["minimize", "minimize"]
        self.study = optuna.create_study(
            study_name=name, storage=storage, sampler=sampler, directions=directions, load_if_exists=True
        )

    def enqueue(self, plans: Sequence[Plan], origin: str = "start") -> None:
        """Propose these plans first, unless they wait or were proposed before; a trial that never ended is repeated."""
        trials = self.study.get_trials(deepcopy=False)
        known = {trial.user_attrs.get("digest") for trial in trials if trial.state.name != "RUNNING"}
        for plan in plans:
            if plan_digest(plan) not in known:
                attributes = {"digest": plan_digest(plan), "origin": origin}
                self.study.enqueue_trial(self.space.to_parameters(plan), user_attrs=attributes)

    def propose(self, front: Sequence[Plan]) -> tuple[Any, Plan]:
        """The next trial: one that waits, a change of a plan of the front, or one of Optuna's sampler."""
        rng = self._rng
        if not self.waiting and front and rng.random() < self.moves:
            known = {trial.user_attrs.get("digest") for trial in self.study.get_trials(deepcopy=False)}
            for _ in range(10):
                plan = front[int(rng.integers(len(front)))]
                for _ in range(1 + rng.binomial(2, 0.25)):
                    plan = change(plan, front, self.space, rng)
                if plan_digest(plan) not in known:
                    self.enqueue([plan], "move")
                    break
        trial = self.study.ask()
        plan = self.space.from_parameters(self._suggest(trial))
        trial.set_user_attr("plan", plan.to_json())
        trial.set_user_attr("digest", plan_digest(plan))
        return trial, plan

    def _suggest(self, trial: Any) -> dict[str, Any]:
        """The parameters of a trial."""
        steps = trial.suggest_int("steps", self.space.least_steps, self.space.most_steps)
        found: dict[str, Any] = {"steps": steps}
        for s in range(steps):
            found[f"gap{s}"] = trial.suggest_float(f"gap{s}", 0.0, 1.0)
            if len(allowed := self.space.allowed(s, steps)) > 1:
                found[f"step{s}"] = trial.suggest_categorical(f"step{s}", allowed)
        return found

    def finish(self, trial: Any, cost: float, distances: dict[int, float], proxies: dict[str, float]) -> None:
        """Store what was measured. Without a distance the trial counts as pruned."""
        from optuna.trial import TrialState

        trial.set_user_attr("cost", cost)
        trial.set_user_attr("proxies", proxies)
        if distances:
            trial.set_user_attr("distances", {str(count): value for count, value in distances.items()})
            self.study.tell(trial, [cost, distances[min(distances)]])
        else:
            self.study.tell(trial, state=TrialState.PRUNED)

    @property
    def waiting(self) -> bool:
        """Whether plans of `enqueue` are left."""
        return any(trial.state.name == "WAITING" for trial in self.study.get_trials(deepcopy=False))

    def fail(self, trial: Any) -> None:
        """A plan that gives no images."""
        from optuna.trial import TrialState

        self.study.tell(trial, state=TrialState.FAIL)

    def refine(self, tried: Tried, count: int, distance: float) -> None:
        """Store the distance of more images for a finished trial."""
        # Optuna does not change finished trials, so this is stored with the study.
        self.study.set_user_attr(f"refined-{tried.number}-{count}", distance)

    @property
    def seconds(self) -> float:
        """Spent on trials, over all processes and resumes."""
        return float(sum(value for key, value in self.study.user_attrs.items() if key.startswith("seconds-")))

    def add_seconds(self, seconds: float) -> None:
        """Count time; a key per process, so that several do not overwrite each other."""
        self._spent += seconds
        self.study.set_user_attr(f"seconds-{self._process}", self._spent)

    def tried(self) -> list[Tried]:
        """Every plan that was measured."""
        refined: dict[int, dict[int, float]] = {}
        for key, value in self.study.user_attrs.items():
            if key.startswith("refined-"):
                _, number, count = key.split("-")
                refined.setdefault(int(number), {})[int(count)] = float(value)
        found = []
        for trial in self.study.get_trials(deepcopy=False):
            attributes = trial.user_attrs
            if "cost" in attributes and trial.state.is_finished():
                distances = {int(count): value for count, value in attributes.get("distances", {}).items()}
                distances |= refined.get(trial.number, {})
                plan, origin = Plan.from_json(attributes["plan"]), attributes.get("origin", "sampler")
                found.append(Tried(trial.number, plan, attributes["cost"], distances, attributes["proxies"], origin))
        return found


def import_optuna() -> Any:
    """The package. Raises UserError when it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError(MISSING) from None
    return optuna


def _default_storage(run: Path) -> str:
    """SQLite in the run folder."""
    folder = run / "search"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder.resolve() / 'study.db'}"
