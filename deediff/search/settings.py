"""The settings of a search, and its progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from deediff.errors import UserError
from deediff.search.space import Choices


@dataclass(frozen=True)
class SearchSettings:
    """What is searched, and how. Raises UserError for values out of range."""

    choices: Choices = "all"
    """full: timesteps only; ends: also a start and an end without the network; all: every exit, readout, network."""
    minutes: float = 20.0
    """Time for the search; validation comes on top."""
    metric: str | None = None
    """A distance of `deediff evaluate`; None: the fd- metric that fits the images."""
    reference: str | None = None
    """Real images; None: the training images of the run."""
    data_root: Path | None = None
    """Folder with the data set in torchvision's layout."""
    weights: Path | None = None
    """Weights of the metric's extractor, or a folder of such files."""
    seed: int = 0
    """Decides the noise, by the two properties below."""
    batch_size: int = 64
    """Images per batch."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    storage: str | None = None
    """URL of an Optuna storage; None: SQLite in the run folder."""
    moves: float = 0.9
    """Share of the proposals that change good plans; Optuna's sampler makes the others."""
    counts: tuple[int, int, int] = (64, 256, 1024)
    """Images of a plan: for the proxies, for the metric, and for the best plans of each budget."""
    validation_images: int = 2048
    """Images by which the chosen plans are validated."""
    budgets: tuple[float, ...] = (2, 3, 4, 5, 6, 7, 8, 9, 10)
    """Evaluations of the full network: the best plan within each is validated."""

    def __post_init__(self) -> None:
        if self.choices not in get_args(Choices):
            raise UserError(f"choices is {self.choices!r}, expected one of: {', '.join(get_args(Choices))}")
        if not self.minutes > 0:
            raise UserError(f"minutes is {self.minutes:g}, expected more than 0")
        if not 0 <= self.seed < 2**62:
            raise UserError(f"the seed is {self.seed}, expected 0 or more (and below 2^62)")
        least, most = min(SearchSettings.budgets), max(SearchSettings.budgets)
        if not self.budgets or not all(least <= budget <= most for budget in self.budgets):
            raise UserError(f"budgets are {list(self.budgets)}, expected numbers of {least} … {most}")
        if self.batch_size < 1:
            raise UserError(f"the batch size is {self.batch_size}, expected 1 or more")

    @property
    def search_seed(self) -> int:
        """Of the noise by which plans are chosen: even …"""
        return 2 * self.seed

    @property
    def validation_seed(self) -> int:
        """… and of the noise by which they are validated: odd, so that no search has ever seen it."""
        return 2 * self.seed + 1


@dataclass(frozen=True)
class SearchState:
    """Progress of a search."""

    trials: int
    seconds: float
    seconds_left: float
    best: dict[float, tuple[float, int]] = field(default_factory=dict)  # per budget: smallest score so far, its images
    task: str = "search"
