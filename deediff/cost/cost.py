"""GFLOPs of each exit, and their mean over the recorded exits of a sampling job.

GFLOPs = 2 × GMACs of linear maps, convolutions and matrix products, the attention products
included; norms, activations and other elementwise operations are not counted. See `components`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
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
    fixed: list[float | None] = field(default_factory=list)  # per step, where it depends on no exit; empty: nowhere
    exits: list[float | None] = field(
        default_factory=list
    )  # N, of reading out an exit where no head does; empty: heads
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
        exits = [math.nan if value is None else value for value in self.exits]
        heads = [*(exits or self.heads or [math.nan] * n), self.decode]
        blocks = np.concatenate([[0.0], np.cumsum(self.blocks)])
        uems = np.cumsum(self.uems) if with_uem and self.uems else np.zeros(n)
        return self.embed + blocks + np.append(uems, uems[-1]) + np.asarray(heads)

    @property
    def fixed_steps(self) -> list[int]:
        """The steps whose exits a plan fixes, ascending."""
        return [s for s, gflops in enumerate(self.fixed) if gflops is not None]

    def of_exits(self, exit_layers: NDArray[np.integer], with_uem: bool) -> NDArray[np.float64]:
        """GFLOPs of recorded exits: (…, S) → (…, S)."""
        gflops = self.at_exit(with_uem)[exit_layers]
        for step in self.fixed_steps:
            gflops[..., step] = self.fixed[step]
        return gflops

    def mean_gflops(self, exits: NDArray[np.int64], with_uem: bool) -> float:
        """Mean over samples and the first S steps, from exit counts (S, N+1), or (N+1,) without fixed steps."""
        by_step = exits.reshape(-1, len(self.blocks) + 1)
        fixed = [step for step in self.fixed_steps if step < len(by_step)]
        decided = np.setdiff1d(np.arange(len(by_step)), fixed)
        counts = by_step[decided].sum(axis=0)
        used = counts > 0
        total = float((counts[used] * self.at_exit(with_uem)[used]).sum())
        total += sum(float(self.fixed[step] or 0.0) * int(by_step[step].sum()) for step in fixed)
        return total / int(by_step.sum())

    def times(self, evaluations: int) -> Cost:
        """The cost of several evaluations of the network per step, as under guidance; without fixed steps."""
        return Cost(
            self.embed * evaluations,
            [value * evaluations for value in self.blocks],
            [value * evaluations for value in self.uems],
            [value * evaluations for value in self.heads],
            self.decode * evaluations,
            without_attention=self.without_attention and self.without_attention.times(evaluations),
        )

    def with_fixed(self, gflops: list[float | None], without_attention: list[float | None]) -> Cost:
        """This cost with steps of a known cost: (S,), None where it depends on the exits."""
        plain = self.without_attention and replace(self.without_attention, fixed=without_attention)
        return replace(self, fixed=gflops, without_attention=plain)

    def with_exits(self, read_out: Callable[[Cost, int], float]) -> Cost:
        """This cost with exits read out otherwise: (cost, layer) → GFLOPs, NaN where there is no exit."""
        values = [read_out(self, layer) for layer in range(len(self.blocks))]
        plain = self.without_attention and self.without_attention.with_exits(read_out)
        return replace(self, exits=[None if math.isnan(v) else v for v in values], without_attention=plain)

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
        found = dict(content)
        shallow, steps = found.pop("shallow", 0.0), found.pop("shallow_steps", 0)  # of traces before plans
        if steps:
            found["fixed"] = [shallow] * steps
        plain = found.get("without_attention")
        return cls(**{**found, "without_attention": plain and cls.from_json(plain)})
