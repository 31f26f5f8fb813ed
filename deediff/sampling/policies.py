"""Exit policies: when does a sample leave the network?

A policy sees one layer at a time. To add one: subclass `ExitPolicy`, register it in `POLICIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from deediff.checkpoints import read_json
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.traces.reader import Trace, read_trace
from deediff.traces.schema import THRESHOLDS


@dataclass(frozen=True)
class Visit:
    """The samples that reach the input of a block, at one denoising step."""

    layer: int  # 0 … N−1: this many blocks have been run
    step: int  # denoising step, 0 first
    timestep: int  # diffusion t
    samples: Tensor  # (B,) sample numbers
    uncertainty: Tensor | None  # (B,) u of this layer, when the policy needs it


class ExitPolicy(ABC):
    """Decides per sample. `spec` is the text that names the policy everywhere."""

    needs_uncertainty: ClassVar[bool] = False  # evaluates the UEM of every layer up to the exit
    needs_heads: ClassVar[bool] = True
    spec: str
    content: Any = None  # what `spec` refers to, where that is a file: part of a trace's record

    @abstractmethod
    def leaves(self, visit: Visit) -> Tensor | bool:
        """Which samples leave here: (B,) bool, or one bool for all of them."""

    def check(self, model: EarlyExitModel) -> None:
        """Raises UserError when the model lacks what this policy needs."""
        if self.needs_uncertainty and model.uem is None:
            raise UserError(f"policy {self.spec} needs UEMs, but this model has none: use 'never', or train its exits")
        if self.needs_heads and model.heads is None:
            raise UserError(f"policy {self.spec} needs output heads, but this model has none: train its exits")


class Never(ExitPolicy):
    """The full network."""

    needs_heads = False
    spec = "never"

    def leaves(self, visit: Visit) -> bool:
        return False


class Threshold(ExitPolicy):
    """Exit when u ≤ τ (DeeDiff/AdaDiff). τ is rounded to float32 here, once."""

    needs_uncertainty = True

    def __init__(self, threshold: float):
        if not 0 <= threshold <= 1:
            raise UserError(f"threshold is {threshold}, expected a number in [0, 1] (exit when u ≤ threshold)")
        self.threshold = np.float32(threshold)
        self.spec = f"threshold:{float(threshold)!r}"

    def leaves(self, visit: Visit) -> Tensor:
        assert visit.uncertainty is not None
        return visit.uncertainty <= float(self.threshold)


class Fixed(ExitPolicy):
    """Every sample leaves at the same layer at every step; the UEMs are not evaluated."""

    def __init__(self, layer: int):
        if layer < 0:
            raise UserError(f"exit layer is {layer}, expected 0 or more")
        self.layer = layer
        self.spec = f"fixed:{layer}"

    def leaves(self, visit: Visit) -> bool:
        return visit.layer == self.layer

    def check(self, model: EarlyExitModel) -> None:
        if self.layer > model.num_blocks:
            raise UserError(f"exit layer is {self.layer}, but this model has only {model.num_blocks} blocks")
        if self.layer < model.num_blocks:
            super().check(model)


def _at(values: list[Any], timestep: int, num_timesteps: int) -> Any:
    """The value of a list that is spread evenly over the timesteps, from t = 0."""
    if timestep >= num_timesteps:
        raise UserError(f"the schedule covers timesteps 0 … {num_timesteps - 1}, but sampling starts at {timestep}")
    return values[timestep * len(values) // num_timesteps]


class ScheduledExit(ExitPolicy):
    """An exit layer per timestep, the same for every sample (ASE, Moon et al. 2024); no UEM is evaluated."""

    def __init__(self, spec: str, layers: list[int], num_timesteps: int):
        self.spec, self.layers, self.num_timesteps = spec, layers, num_timesteps

    def leaves(self, visit: Visit) -> bool:
        return visit.layer == _at(self.layers, visit.timestep, self.num_timesteps)

    def check(self, model: EarlyExitModel) -> None:
        if max(self.layers) > model.num_blocks:
            raise UserError(
                f"policy {self.spec} holds exit layer {max(self.layers)}, but this model has only "
                f"{model.num_blocks} blocks: give layers 0 … {model.num_blocks}"
            )
        if min(self.layers) < model.num_blocks:
            super().check(model)


class ScheduledThreshold(ExitPolicy):
    """Exit when u ≤ τ, with a τ per timestep or per layer."""

    needs_uncertainty = True

    def __init__(self, spec: str, thresholds: list[float], num_timesteps: int | None):
        self.spec, self.num_timesteps = spec, num_timesteps  # None: one τ per layer
        self.thresholds = [float(np.float32(value)) for value in thresholds]

    def leaves(self, visit: Visit) -> Tensor:
        assert visit.uncertainty is not None
        if self.num_timesteps is None:
            return visit.uncertainty <= self.thresholds[visit.layer]
        return visit.uncertainty <= _at(self.thresholds, visit.timestep, self.num_timesteps)

    def check(self, model: EarlyExitModel) -> None:
        super().check(model)
        if self.num_timesteps is None and len(self.thresholds) != model.num_blocks:
            raise UserError(
                f"policy {self.spec} holds {len(self.thresholds)} thresholds, "
                f"expected one per layer: {model.num_blocks}"
            )


def read_schedule(file: Path) -> ExitPolicy:
    """A policy from a JSON file with one list: `exit_layer` or `threshold` over time, or `layer_threshold`.

    A list over time starts at t = 0 and is spread evenly over `num_timesteps` (default 1000): 1000
    values are one per timestep, 10 one per hundred. Raises UserError when it is anything else.
    """
    content, spec = read_json(file), f"schedule:{file}"
    total = content.get("num_timesteps", 1000)
    kinds = [kind for kind in ("exit_layer", "threshold", "layer_threshold") if kind in content]
    if len(kinds) != 1:
        raise UserError(f"{file} holds {kinds or 'none'} of exit_layer, threshold, layer_threshold: give exactly one")
    kind, values = kinds[0], content[kinds[0]]
    if not isinstance(values, list) or not values or not isinstance(total, int) or total < 1:
        raise UserError(f"{file}: {kind} is not a list of numbers")
    whole = kind == "exit_layer"
    for value in values:
        fits = isinstance(value, int) and value >= 0 if whole else isinstance(value, int | float) and 0 <= value <= 1
        if not fits:
            expected = "layers 0, 1, …" if whole else "numbers in [0, 1]"
            raise UserError(f"{file}: {kind} holds {value!r}, expected {expected}")
    if kind != "layer_threshold" and total % len(values):
        raise UserError(f"{file}: {kind} has {len(values)} values, which does not divide {total} timesteps evenly")
    policy: ExitPolicy
    if whole:
        policy = ScheduledExit(spec, values, total)
    else:
        policy = ScheduledThreshold(spec, values, None if kind == "layer_threshold" else total)
    policy.content = content
    return policy


def budget_threshold(gflops: float, trace: Trace) -> Threshold:
    """The smallest τ at which `trace` promises at most this many GFLOPs per image and step (open loop).

    Raises UserError when it answers no threshold that cheap.
    """
    lowest = trace.what_if_limit
    if lowest is None:
        raise UserError(f"{trace.path} cannot find a threshold for a budget, because {trace.why_no_what_if}")
    cost = float("nan")
    for tau in THRESHOLDS[np.float32(lowest[0]) <= THRESHOLDS]:
        cost = trace.what_if(float(tau)).gflops
        if cost <= gflops:
            return Threshold(round(float(tau), 3))
    raise UserError(f"no threshold costs {gflops:g} GFLOPs or less on {trace.path}: the cheapest is {cost:.4g}")


class Replay(ExitPolicy):
    """Given exit layers, whatever the weights say: for benchmarks. Evaluates the UEMs like a threshold."""

    needs_uncertainty = True
    spec = "replay"

    def __init__(self, exit_layers: Tensor):  # (samples, steps)
        self.exit_layers = exit_layers

    def leaves(self, visit: Visit) -> Tensor:
        return self.exit_layers[visit.samples, visit.step] == visit.layer


POLICIES: dict[str, str] = {
    "never": "the full network",
    "threshold:τ": "exit when the uncertainty is ≤ τ, for example threshold:0.075",
    "fixed:i": "every sample leaves after i blocks, for example fixed:6",
    "schedule:FILE": "JSON: exit_layer or threshold per range of timesteps from t = 0, or layer_threshold",
    "budget:GFLOPs@TRACE": "the threshold that costs this much per image and step, by a trace's summary",
}


def make_policy(spec: str | ExitPolicy) -> ExitPolicy:
    """A policy from its text, for example 'threshold:0.075'. Raises UserError when it means nothing."""
    if isinstance(spec, ExitPolicy):
        return spec
    name, _, argument = spec.partition(":")
    try:
        if spec == "never":
            return Never()
        if name == "threshold":
            return Threshold(float(argument))
        if name == "fixed":
            return Fixed(int(argument))
        if name == "schedule":
            return read_schedule(Path(argument))
        if name == "budget":
            gflops, _, trace = argument.partition("@")
            return budget_threshold(float(gflops), read_trace(trace))
    except UserError:
        raise
    except ValueError:
        raise UserError(f"policy {spec!r}: {argument!r} is not a number, expected for example {name}:0.075") from None
    raise UserError(f"unknown policy {spec!r}, expected one of: {', '.join(POLICIES)}")


def as_mask(leaves: Tensor | bool, batch: int, device: torch.device) -> Tensor:
    """(B,) bool."""
    return leaves if isinstance(leaves, Tensor) else torch.full((batch,), leaves, device=device)
