"""GFLOPs per component and per exit.

GFLOPs = 2 × GMACs of linear maps, convolutions and matrix products, the attention products
included; norms, activations and other elementwise work are not counted. fvcore does the counting,
with a handle for the fused attention that it misses.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from fvcore.nn import FlopCountAnalysis
from numpy.typing import NDArray
from torch import Tensor, nn

from deediff.models import EarlyExitModel

if TYPE_CHECKING:
    from deediff.sampling.policies import ExitPolicy


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
        )

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
        return cls(**content)


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:
    """q kᵀ and its product with v: 2 · batch · heads · Lq · Lk · head_dim multiply-accumulates."""
    (*batch, queries, dim), keys = inputs[0].type().sizes(), inputs[1].type().sizes()[-2]
    return 2 * math.prod(batch) * queries * keys * dim


class _Call(nn.Module):
    """Lets fvcore trace any method of a module."""

    def __init__(self, owner: nn.Module, method: str, *arguments: Any):
        super().__init__()
        self.owner, self.method, self.arguments = owner, method, arguments

    def forward(self, *tensors: Tensor) -> Tensor:
        return getattr(self.owner, self.method)(*self.arguments, *tensors)


def _gflops(owner: nn.Module, method: str, arguments: Sequence[Any], tensors: tuple[Tensor, ...]) -> float:
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    logging.getLogger("torch.jit").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        counter = FlopCountAnalysis(_Call(owner, method, *arguments), tensors)
        counter.set_op_handle("aten::scaled_dot_product_attention", _attention_macs)
        counter.set_op_handle("aten::layer_norm", lambda inputs, outputs: 0)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return 2 * counter.total() / 1e9


def sampling_cost(model: EarlyExitModel, policy: ExitPolicy, timesteps: list[int], guidance: float | None) -> Cost:
    """Of one image and one step of this sampling job, guidance and a shallow network for the first steps included."""
    cost = model_cost(model)
    others = [other for t in timesteps if (other := policy.network(t)) is not None]
    if others:
        cost = replace(cost, shallow=model_cost(others[0]).full, shallow_steps=len(others))
    return cost if guidance is None else cost.times(2)


def model_cost(model: EarlyExitModel) -> Cost:
    """Count every component of a model, for one image and one step."""
    key = json.dumps([model.backbone.config(), model.uem.config() if model.uem is not None else None, model.head_kind])
    return _model_cost(key)


@lru_cache(maxsize=64)
def _model_cost(key: str) -> Cost:
    from deediff.models import build_backbone

    backbone_config, uem_config, heads = json.loads(key)
    model = EarlyExitModel(build_backbone(backbone_config))
    if uem_config is not None:
        model.add_exits(uem_config, heads or "each")
    backbone = model.backbone
    x, t = torch.zeros(1, *model.image_shape), torch.zeros(1, dtype=torch.int64)
    y = (torch.zeros(1, dtype=torch.int64),) if backbone.num_classes else ()
    with torch.no_grad():
        states = list(backbone.states(x, t, *y))
    blocks = []
    for i in range(model.num_blocks):
        source = backbone.skip_source(i)
        skip = () if source is None else (states[source + 1],)
        blocks.append(_gflops(backbone, "block", [i], (states[i], *skip)))
    uems, heads = [], []
    if model.uem is not None and model.heads is not None:
        for i in range(model.num_blocks):
            uems.append(_gflops(model.uem, "forward", [i], (states[i], t)) if i in model.uem.layers else 0.0)
            heads.append(_gflops(model, "read_out", [i], (states[i],)))
    return Cost(
        embed=_gflops(backbone, "embed", [], (x, t, *y)),
        blocks=blocks,
        uems=uems,
        heads=heads,
        decode=_gflops(backbone, "decode", [], (states[-1],)),
    )
