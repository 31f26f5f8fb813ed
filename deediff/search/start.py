"""The plans that a search begins with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.timesteps import spaced_timesteps
from deediff.errors import UserError
from deediff.plans import Plan, PlanStep
from deediff.plans.file import read_plan
from deediff.search.space import Space

UNIFORM = range(3, 13)
SPACED = (  # timesteps of 1000 that gave good images on two data sets
    (999, 650, 450, 280, 110),
    (999, 650, 500, 360, 230, 100),
    (999, 700, 580, 460, 340, 220, 100),
    (999, 850, 740, 630, 520, 410, 300, 190, 90),
    (999, 850, 740, 630, 520, 410, 300, 200, 110, 40),
)
NOISY = 600  # of 1000: above, a step may do without the network


def uniform_plan(num_blocks: int, schedule: Schedule, steps: int) -> Plan:
    """The full network at uniform timesteps."""
    timesteps = spaced_timesteps(schedule, steps, "trailing")
    return Plan(tuple(map(PlanStep, timesteps)), num_blocks, schedule.num_timesteps, clip_x0=True)


def spaced_plans(num_blocks: int, schedule: Schedule) -> list[Plan]:
    """The full network at the timesteps of SPACED."""
    last = schedule.num_timesteps - 1
    scaled = [dict.fromkeys(round(t / 999 * last) for t in timesteps) for timesteps in SPACED]
    return [Plan(tuple(map(PlanStep, found)), num_blocks, last + 1, clip_x0=True) for found in scaled]


def start_plans(space: Space, schedule: Schedule, run: Path) -> list[Plan]:
    """Plans of this run and of the runs beside it, spaced ones with and without cheap ends, and uniform ones."""
    plans = [*_found(run)]
    plans += [plan for timesteps in SPACED for plan in _with_ends(space, timesteps)]
    plans += [uniform_plan(space.num_blocks, schedule, steps) for steps in UNIFORM]
    return [plan for plan in dict.fromkeys(plans) if space.holds(plan)]


def _with_ends(space: Space, timesteps: tuple[int, ...]) -> Iterator[Plan]:
    """The full network everywhere; then with a cheap option at the noisy end, and the last prediction reused."""
    last = space.num_timesteps - 1
    scaled = [round(t / 999 * last) for t in timesteps]
    if len(set(scaled)) < len(scaled):
        return
    full = ["full"] * len(scaled)
    yield space.plan(scaled, full)
    noisy = int(np.sum(np.array(timesteps) > NOISY))
    for cheap, count in (("input", 1), ("gaussian", noisy)):
        if cheap in space.names:
            names = [cheap] * count + full[count:]
            yield space.plan(scaled, names)
            yield space.plan(scaled, [*names[:-1], "output:0"])


def _found(run: Path) -> Iterator[Plan]:
    """Plans of this run and of the runs beside it."""
    for file in sorted(run.resolve().parent.glob("*/plans/*.json")):
        try:
            yield read_plan(file)
        except UserError:
            continue
