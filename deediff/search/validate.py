"""The best plans sampled again with noise that was not used for choosing: only these numbers are reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deediff.plans import Plan
from deediff.quality.paired import quality_difference
from deediff.quality.results import Quality
from deediff.search.cache import FeatureCache


@dataclass(frozen=True, eq=False)
class Validated:
    """A plan and its measures."""

    name: str
    plan: Plan
    cost: float  # evaluations of the full network
    gflops: float
    quality: Sequence[Quality]

    def of(self, metric: str) -> Quality:
        """One of its measures."""
        return next(entry for entry in self.quality if entry.metric == metric)


@dataclass(frozen=True, eq=False)
class Validation:
    """Measures plans with the noise of one seed."""

    cache: FeatureCache
    seed: int
    images: int

    def of(self, plan: Plan, name: str) -> Validated:
        """Sample a plan, or take its features from the cache, and measure it."""
        judge = self.cache.judge
        quality = judge.measure(self.cache.features(plan, self.seed, self.images), self.seed)
        return Validated(name, plan, judge.cost(plan), judge.gflops(plan), quality)

    def point(self, found: Validated) -> dict[str, Any]:
        """A plan in front.json."""
        return {
            "plan": found.name,
            "steps": str(found.plan),
            "timesteps": list(found.plan.timesteps),
            "evaluations": round(found.cost, 4),
            "gflops_per_image": round(found.gflops, 6),
            "images": self.images,
            "seed": self.seed,
            "metrics": {entry.metric: _interval(entry) for entry in found.quality},
        }

    def differences(self, found: Validated, rivals: Sequence[Validated]) -> list[dict[str, Any]]:
        """The plan minus each rival, for every metric; paired, because the noise is equal."""
        rows = []
        for rival in rivals:
            changes = {}
            for entry in found.quality:
                change = quality_difference(entry, rival.of(entry.metric))
                changes[entry.metric] = _interval(change)
            saving = 1 - found.cost / rival.cost
            rows.append(
                {"plan": rival.name, "evaluations": round(rival.cost, 4), "saving": round(saving, 4)}
                | {"differences": changes}
            )
        return rows


def _interval(found: Any) -> dict[str, float]:
    return {name: round(getattr(found, name), 5) for name in ("value", "low", "high")}
