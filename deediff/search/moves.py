"""One-step changes of plans, and crossings of two: proposals near plans that are good already."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from deediff.plans import Plan
from deediff.plans.plan import step_name
from deediff.search.space import Space

Rng = np.random.Generator
Draft = tuple[list[int], list[str]]  # timesteps, options
ATTEMPTS = 20


def change(plan: Plan, partners: Sequence[Plan], space: Space, rng: Rng) -> Plan:
    """A plan of the space that differs from this one by one move; the same plan when no move fits.

    A crossing takes the noisy end from this plan, and the rest from one of `partners`.
    """
    moves: list[Callable[[Draft], Draft | None]] = [
        lambda draft: _shift(draft, rng),
        lambda draft: _shift(draft, rng),
        lambda draft: _choose(draft, space, rng),
        lambda draft: _choose(draft, space, rng),
        lambda draft: _drop(draft, rng),
        lambda draft: _insert(draft, space, rng),
        lambda draft: _cross(draft, _draft(partners[int(rng.integers(len(partners)))]), rng) if partners else None,
    ]
    for _ in range(ATTEMPTS):
        found = moves[rng.integers(len(moves))](_draft(plan))
        if found is not None and space.least_steps <= len(found[0]) <= space.most_steps:
            changed = _within(space, *found)
            if changed != plan:
                return changed
    return plan


def _draft(plan: Plan) -> Draft:
    return list(plan.timesteps), [step_name(step) for step in plan.steps]


def _within(space: Space, timesteps: list[int], names: list[str]) -> Plan:
    """The plan, with the full network where an option is not allowed."""
    count = len(names)
    return space.plan(timesteps, [name if name in space.allowed(s, count) else "full" for s, name in enumerate(names)])


def _shift(draft: Draft, rng: Rng) -> Draft | None:
    """Move one timestep, but not the first, towards a neighbour, by up to 0.6 of the distance."""
    timesteps, names = draft
    if len(timesteps) < 2:
        return None
    s = int(rng.integers(1, len(timesteps)))
    above, below = timesteps[s - 1], timesteps[s + 1] if s + 1 < len(timesteps) else -1
    room = (above if rng.random() < 0.5 else below) - timesteps[s]
    shift = round(room * rng.uniform(0.05, 0.6))
    timesteps[s] = min(max(timesteps[s] + shift, below + 1), above - 1)
    return timesteps, names


def _choose(draft: Draft, space: Space, rng: Rng) -> Draft | None:
    """Another option for one step."""
    timesteps, names = draft
    s = int(rng.integers(len(names)))
    others = [name for name in space.allowed(s, len(names)) if name != names[s]]
    if not others:
        return None
    names[s] = others[rng.integers(len(others))]
    return timesteps, names


def _drop(draft: Draft, rng: Rng) -> Draft | None:
    """Leave out one step, but not the first timestep."""
    timesteps, names = draft
    if len(timesteps) < 2:
        return None
    s = int(rng.integers(1, len(timesteps)))
    return timesteps[:s] + timesteps[s + 1 :], names[:s] + names[s + 1 :]


def _insert(draft: Draft, space: Space, rng: Rng) -> Draft | None:
    """A new step between two, of any option."""
    timesteps, names = draft
    s = int(rng.integers(1, len(timesteps) + 1))
    above, below = timesteps[s - 1], timesteps[s] if s < len(timesteps) else -1
    if above - below < 2:
        return None
    middle = round(below + (above - below) * rng.uniform(0.3, 0.7))
    allowed = space.allowed(s, len(names) + 1)
    timesteps.insert(s, min(max(middle, below + 1), above - 1))
    names.insert(s, allowed[rng.integers(len(allowed))])
    return timesteps, names


def _cross(draft: Draft, other: Draft, rng: Rng) -> Draft | None:
    """This plan above a timestep, and another one below."""
    at = int(rng.integers(draft[0][0]))
    above, below = (
        [(t, name) for t, name in zip(*side, strict=True) if (t > at) == noisy]
        for side, noisy in ((draft, True), (other, False))
    )
    if not above or not below:
        return None
    steps = above + below
    return [t for t, _ in steps], [name for _, name in steps]
