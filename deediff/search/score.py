"""What a search minimises: a distance that a plan cannot lower by making another one worse."""

from __future__ import annotations

from dataclasses import dataclass, field

from deediff.quality.jackknife import Features
from deediff.search.cache import FeatureCache
from deediff.search.start import uniform_plan

ALLOWED_STEPS = 10  # uniform steps of the full network, whose guards a plan may have


@dataclass(frozen=True, eq=False)
class Score:
    """The judge's first distance, times guard / allowed for each guard that is above what is allowed.

    A search that minimises one distance finds plans that exploit it: images that its extractor mistakes for real ones.
    Allowed is the guard of the full network in ALLOWED_STEPS uniform steps, from the same noise.
    """

    cache: FeatureCache
    seed: int
    _allowed: dict[int, list[float]] = field(default_factory=dict)  # by number of images

    def __call__(self, features: Features) -> float:
        """Of samples 0, 1, … of a plan."""
        score, *guards = self.cache.judge.measured(features)
        for guard, allowed in zip(guards, self.allowed(len(features)), strict=True):
            score *= max(1.0, guard / allowed)
        return score

    def allowed(self, count: int) -> list[float]:
        """The guards of the full network, with this many images."""
        if count not in self._allowed:
            judge = self.cache.judge
            plan = uniform_plan(judge.model.num_blocks, judge.schedule, ALLOWED_STEPS)
            self._allowed[count] = judge.measured(self.cache.features(plan, self.seed, count))[1:]
        return self._allowed[count]
