"""GFLOPs of each exit, and their mean over the recorded exits of a sampling job.

GFLOPs = 2 × GMACs of linear maps, convolutions and matrix products, the attention products
included; norms, activations and other elementwise operations are not counted. See `components`.
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
    shallow: float = 0.0  # another network for the first steps (DuoDiff), in full
    shallow_steps: int = 0  # number of those steps
    without_attention: Cost | None = None  # the same without the attention products; None in old traces

    @property
    def full(self) -> float:
        """The plain backbone: no UEM, no extra head."""
        return self.embed + sum(self.blocks) + self.decode

    def at_exit(self, with_uem: bool) -> NDArray[np.float64]:
        """(N+1,) cost of an exit at layer i: i blocks, the evaluated UEMs, the output head.

        UEMs 0 … i are evaluated for an exit at i < N, all N of them for i = N.
        """
        n = len(self.blocks)
        heads = [*(self.heads or [math.nan] * n), self.decode]
        blocks = np.concatenate([[0.0], np.cumsum(self.blocks)])
        uems = np.cumsum(self.uems) if with_uem and self.uems else np.zeros(n)
        return self.embed + blocks + np.append(uems, uems[-1]) + np.asarray(heads)

    def mean_gflops(self, exits: NDArray[np.int64], with_uem: bool) -> float:
        """Mean over samples and steps, from exit counts (S, N+1), or (N+1,) without another network."""
        by_step = exits.reshape(-1, len(self.blocks) + 1)
        counts = by_step[self.shallow_steps :].sum(axis=0)
        used = counts > 0
        total = (counts[used] * self.at_exit(with_uem)[used]).sum()
        return float((total + self.shallow * by_step[: self.shallow_steps].sum()) / by_step.sum())

    def times(self, evaluations: int) -> Cost:
        """The cost of several evaluations of the network per step, as under guidance."""
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
        """This cost with another network for the first `steps` steps."""
        own, other = self.without_attention, shallow.without_attention
        plain = own.after(other, steps) if own and other else None
        return replace(self, shallow=shallow.full, shallow_steps=steps, without_attention=plain)

    def layer_ratio(self, exits: NDArray[np.int64]) -> float:
        """mean(exit layer) / N, from exit counts (…, N+1)."""
        counts = exits.reshape(-1, len(self.blocks) + 1).sum(axis=0)
        n = len(self.blocks)
        return float((counts * np.arange(n + 1)).sum() / counts.sum() / n)

    def to_json(self) -> dict[str, Any]:
        """The JSON of trace.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Cost:
        """Reads the JSON of trace.json."""
        plain = content.get("without_attention")
        return cls(**{**content, "without_attention": plain and cls.from_json(plain)})
