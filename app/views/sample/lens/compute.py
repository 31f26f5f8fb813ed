"""What the lens shows, computed in the background from a sample's seed, once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.jobs.results import Stopped
from app.state import cache
from app.state.selection import Selection
from app.views.sample.film import weights_of
from app.views.sample.stored import number_of
from app.widgets import waiting
from deediff.analysis.lens import Lens, available_readouts, diffusion_lens
from deediff.analysis.trajectory import ExitChoice, Trajectory, follow, force_exit
from deediff.diffusion.schedule import Schedule
from deediff.models import EarlyExitModel
from deediff.traces.reader import Trace

AT_ONCE = 300.0  # GFLOPs: less is computed without a click
MOST = 4  # trajectories kept in this process
FRAMES = 12

Images = NDArray[np.uint8]
_TRAJECTORIES: OrderedDict[tuple[str, int, int], Trajectory] = OrderedDict()  # used by one worker thread only


@dataclass(frozen=True)
class Source:
    """A sample of a trace, and the model that it was sampled from."""

    trace: Trace
    number: int
    model: EarlyExitModel
    schedule: Schedule

    @property
    def key(self) -> tuple[str, int, int]:
        """Identifies the sample and the content of its trace."""
        return str(self.trace.path), cache.stamp(self.trace), self.number

    @property
    def gflops(self) -> float:
        """Cost of the whole trajectory, without early exit."""
        batch = (self.trace.meta.batch_size or 1) if self.trace.meta.policy.name == "batch-mean" else 1
        return self.trace.cost.full * len(self.trace.timesteps) * batch


def source_of(selected: Selection) -> Source:
    """The selected sample. Raises UserError when the trace's weights are missing."""
    trace = selected.trace
    assert trace is not None
    model, schedule = cache.get_model(weights_of(trace, selected.run.checkpoints, "lens"))
    return Source(trace, number_of(selected), model, schedule)


def readouts_of(source: Source) -> list[str]:
    """Readouts without blocks that the run has, by name; those of equal x̂_0 once."""
    return [name for name in available_readouts(source.model) if name != "teleport" or _planned(source, name)]


def _planned(source: Source, name: str) -> bool:
    plan = source.trace.meta.plan
    return plan is not None and any(step.readout == name for step in plan.steps)


@dataclass(frozen=True)
class Grid:
    """Which cells, and how they are read; a part of the key of the result."""

    steps: tuple[int, ...]
    layers: tuple[int, ...]
    readouts: tuple[str, ...]
    exits: str


def is_computed(source: Source, grid: Grid) -> bool:
    """Whether the lens can be drawn without waiting for a whole trajectory."""
    return source.key in _TRAJECTORIES or waiting.RESULTS.is_known(("lens", source.key, grid))


def lens_of(source: Source, grid: Grid) -> Lens | None:
    """Waits, with a spinner. None when something newer is wanted. Raises UserError."""
    text = f"Recomputing sample {source.number} from its seed, and every exit along its way …"
    found: Lens | None = waiting.result("lens", ("lens", source.key, grid), partial(_compute_lens, source, grid), text)
    return found


def _compute_lens(source: Source, grid: Grid, stopped: Stopped) -> Lens | None:
    trajectory = _trajectory(source, stopped)
    if trajectory is None:
        return None
    return diffusion_lens(trajectory, grid.steps, grid.layers, grid.readouts, grid.exits, stopped)


def _trajectory(source: Source, stopped: Stopped) -> Trajectory | None:
    found = _TRAJECTORIES.get(source.key)
    if found is None:
        found = follow(source.trace, source.number, source.model, source.schedule, cancelled=stopped)
    if found is not None:
        _TRAJECTORIES[source.key] = found
        _TRAJECTORIES.move_to_end(source.key)
        while len(_TRAJECTORIES) > MOST:
            _TRAJECTORIES.popitem(last=False)
    return found


@dataclass(frozen=True)
class FilmedSide:
    """One of two trajectories."""

    film: Images  # (F,C,H,W) x̂_0 at the frames
    image: Images  # (C,H,W)
    exit_layers: NDArray[np.int8]  # (S,)
    gflops: float  # of the whole sample


@dataclass(frozen=True)
class Counterfactual:
    """A sample as it was, and with one decision changed."""

    steps: tuple[int, ...]  # (F,) the frames
    sampled: FilmedSide
    forced: FilmedSide
    distance: float  # RMS difference of the images in grey levels


def counterfactual_of(source: Source, step: int, choice: ExitChoice) -> Counterfactual | None:
    """Waits, with a spinner. None when something newer is wanted. Raises UserError."""
    key = ("forced", source.key, step, choice)
    text = "Sampling again with this one decision changed …"
    found: Counterfactual | None = waiting.result("forced", key, partial(_compute_forced, source, step, choice), text)
    return found


def _compute_forced(source: Source, step: int, choice: ExitChoice, stopped: Stopped) -> Counterfactual | None:
    sampled = _trajectory(source, stopped)
    forced = None if sampled is None else force_exit(sampled, step, choice, cancelled=stopped)
    if sampled is None or forced is None:
        return None
    frames = spread_steps(len(sampled.timesteps), FRAMES, step)
    sides = {}
    for name, of in (("sampled", sampled), ("forced", forced)):
        sides[name] = FilmedSide(of.film[list(frames)], of.image, of.exit_layers, float(of.gflops.sum()))
    return Counterfactual(frames, **sides, distance=sampled.distance(forced))


def spread_steps(total: int, most: int, keep: int) -> tuple[int, ...]:
    """At most `most` of the numbers 0 … total − 1, spread evenly, the nearest one replaced by `keep`."""
    chosen = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int))
    chosen[int(np.abs(chosen - keep).argmin())] = keep
    return tuple(int(number) for number in chosen)
