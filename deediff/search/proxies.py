"""Cheap measures of a plan, from a few images, and how well each ranks plans."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from deediff.plans import Plan
from deediff.plans.front import TOLERANCE
from deediff.search.front import BUDGETS, budget_of
from deediff.search.judge import Draw, Judge, plan_digest
from deediff.search.recorded import Recording
from deediff.search.score import Score
from deediff.search.start import uniform_plan
from deediff.search.study import Tried
from deediff.storage import write_atomically

SOLUTION_STEPS = 100
NAMES = ("image", "features", "open-loop", "metric")
LEAST_RANKED = 8  # plans, for a rank correlation


@dataclass(frozen=True, eq=False)
class Proxies:
    """Measures of the first images of a plan.

    - image: RMS of the difference from a solution in 100 steps by the full network from the same noise
    - features: the same of the features
    - open-loop: the plan's error on a recording of the full network, without sampling the plan (`Recording`)
    - metric: the score of these few images, whose bias is nearly the same for all plans
    """

    score: Score
    solution: Draw
    recording: Recording

    def measure(self, plan: Plan, draw: Draw) -> dict[str, float]:
        """The proxies of a plan by name; `draw` are its first images."""
        image = (draw.images - self.solution.images).square().mean().sqrt()
        features = np.sqrt(np.square(draw.features - self.solution.features).mean())
        return {
            "image": float(image),
            "features": float(features),
            "open-loop": self.recording.deviation(plan),
            "metric": self.score(draw.features),
        }


def make_proxies(score: Score, count: int) -> Proxies:
    """With the solution from the cache if it is there."""
    judge, seed, folder = score.cache.judge, score.seed, score.cache.folder
    schedule = judge.schedule
    plan = uniform_plan(judge.model.num_blocks, schedule, min(SOLUTION_STEPS, schedule.num_timesteps))
    return Proxies(score, cached_draw(judge, plan, seed, range(count), folder), Recording(judge, seed))


def cached_draw(judge: Judge, plan: Plan, seed: int, samples: range, folder: Path) -> Draw:
    """A draw that is kept in a file."""
    sha256 = "" if judge.model.origin is None else judge.model.origin[1][:8]
    file = folder / f"{plan_digest(plan)}-{sha256}-{seed}-{samples.stop}-{judge.extractor_key}.npz"
    if file.exists():
        try:
            with np.load(file) as saved:
                return Draw(torch.from_numpy(saved["images"]), saved["features"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            file.unlink(missing_ok=True)  # damaged: sampled again
    draw = judge.draw(plan, seed, samples)
    buffer = io.BytesIO()
    np.savez(buffer, images=draw.images.numpy(), features=draw.features)
    write_atomically(file, buffer.getvalue(), sync=False)
    return draw


def rank_correlations(tried: Sequence[Tried], count: int) -> dict[str, float]:
    """Spearman's ρ of each proxy with the metric of `count` images, over the better half of the plans with both.

    The worse half is left out: any measure tells it from the better one.
    """
    both = sorted((plan for plan in tried if count in plan.distances), key=lambda plan: plan.distances[count])
    half = both[: (len(both) + 1) // 2]
    if len(half) < LEAST_RANKED:
        return {}
    found = {}
    for name in NAMES:
        pairs = [(plan.proxies[name], plan.distances[count]) for plan in half if name in plan.proxies]
        if len(pairs) >= LEAST_RANKED:
            found[name] = spearmanr(*zip(*pairs, strict=True)).statistic
    return {name: round(float(value), 3) for name, value in found.items() if np.isfinite(value)}


def best_proxy(tried: Sequence[Tried], count: int) -> str:
    """The proxy that ranks best so far."""
    found = rank_correlations(tried, count)
    return max(found, key=lambda name: found[name]) if found else "metric"


def promising(
    proxies: dict[str, float],
    cost: float,
    tried: Sequence[Tried],
    name: str,  # of the proxy
    budgets: Sequence[float] = BUDGETS,
    allowed: int = 4,
) -> bool:
    """Whether fewer than `allowed` plans within the same budget are at most as far by this proxy."""
    budget = budget_of(cost, budgets)
    rivals = [plan for plan in tried if budget is not None and plan.cost <= budget + TOLERANCE]
    return budget is not None and sum(plan.proxies.get(name, math.inf) <= proxies[name] for plan in rivals) < allowed
