"""GFLOPs of leaving at each exit, and the mean over what a sampling did.

GFLOPs = 2 × GMACs of linear maps, convolutions and matrix products, the attention products
included; norms, activations and other elementwise work are not counted. See `components`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cost:
    """GFLOPs for one image and one step."""

    embed: float
    blocks: list[float]  # N
    uems: list[float]  # N; empty without UEMs
    heads: list[float]  # N; empty without heads
    decode: float
    shallow: float = 0.0  # another network that takes the first steps (DuoDiff), in full
    shallow_steps: int = 0  # how many steps it takes
    without_attention: Cost | None = None  # the same without the attention products; None in traces older than this

    @property
    def full(self) -> float:
        """The plain backbone: no UEM, no extra head."""
        return self.embed + sum(self.blocks) + self.decode

    def at_exit(self, with_uem: bool) -> NDArray[np.float64]:
        """(N+1,) cost of leaving at exit i: i blocks, the UEMs asked on the way, the output layer.

        Leaving at i < N has asked UEMs 0 … i; not leaving has asked all N.
        """
        n = len(self.blocks)
        heads = [*(self.heads or [math.nan] * n), self.decode]
        blocks = np.concatenate([[0.0], np.cumsum(self.blocks)])
        asked = np.cumsum(self.uems) if with_uem and self.uems else np.zeros(n)
        return self.embed + blocks + np.append(asked, asked[-1]) + np.asarray(heads)

    def mean_gflops(self, exits: NDArray[np.int64], with_uem: bool) -> float:
        """Mean over samples and steps, from exit counts (S, N+1), or (N+1,) where no other network takes steps."""
        by_step = exits.reshape(-1, len(self.blocks) + 1)
        counts = by_step[self.shallow_steps :].sum(axis=0)
        used = counts > 0
        total = (counts[used] * self.at_exit(with_uem)[used]).sum()
        return float((total + self.shallow * by_step[: self.shallow_steps].sum()) / by_step.sum())

    def times(self, evaluations: int) -> Cost:
        """Of several evaluations of the network per step, as under guidance."""
        return Cost(
            self.embed * evaluations,
            [value * evaluations for value in self.blocks],
            [value * evaluations for value in self.uems],
            [value * evaluations for value in self.heads],
            self.decode * evaluations,
            self.shallow * evaluations,
            self.shallow_steps,
            self.without_attention and self.without_attention.times(evaluations),
        )

    def after(self, shallow: Cost, steps: int) -> Cost:
        """When another network takes the first steps."""
        mine, theirs = self.without_attention, shallow.without_attention
        plain = mine.after(theirs, steps) if mine and theirs else None
        return replace(self, shallow=shallow.full, shallow_steps=steps, without_attention=plain)

    def layer_ratio(self, exits: NDArray[np.int64]) -> float:
        """mean(exit layer) / N, from exit counts (…, N+1)."""
        counts = exits.reshape(-1, len(self.blocks) + 1).sum(axis=0)
        n = len(self.blocks)
        return float((counts * np.arange(n + 1)).sum() / counts.sum() / n)

    def to_json(self) -> dict[str, Any]:
        """For trace.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Cost:
        """From trace.json."""
        plain = content.get("without_attention")
        return cls(**{**content, "without_attention": plain and cls.from_json(plain)})
