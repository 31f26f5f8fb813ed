"""Exit policies: when does a sample leave the network?

A policy sees one layer at a time. To add one: subclass `ExitPolicy` and register it in `registry.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel


class LayerState(NamedTuple):
    """The samples that reach the input of a block, at one denoising step."""

    layer: int  # 0 … N−1: this many blocks have been run
    num_blocks: int  # N
    step: int  # denoising step, 0 first
    timestep: int  # diffusion t
    samples: NDArray[np.int64]  # (k,) sample numbers
    uncertainty: Tensor | None = None  # (k,) u of this layer, when the policy needs it
    lowest_uncertainty: Tensor | None = None  # (k,) smallest u of the earlier layers, when the policy needs it


class ExitPolicy(ABC):
    """Decides per sample. `spec` is the text that names the policy everywhere."""

    needs_uncertainty: bool = False  # evaluates the UEM of every layer up to the exit
    needs_lowest_uncertainty: bool = False  # reads `LayerState.lowest_uncertainty`
    needs_heads: ClassVar[bool] = True
    decides_for_batch: bool = False  # has to see the whole batch at once
    spec: str
    content: Any = None  # what `spec` refers to, where that is a file: part of a trace's record
    seed: int | None = None  # the only one it knows what to do for; None: any

    @abstractmethod
    def should_exit(self, state: LayerState) -> Tensor | bool:
        """Which samples leave here: (k,) bool, or one bool for all of them."""

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        """Raises UserError when the model lacks what this policy needs."""
        if self.needs_uncertainty and model.uem is None:
            raise UserError(f"policy {self.spec} needs UEMs, but this model has none: use 'never', or train its exits")
        if self.needs_heads and model.heads is None:
            raise UserError(f"policy {self.spec} needs output heads, but this model has none: train its exits")

    def check_layer(self, model: EarlyExitModel, layer: int) -> None:
        """Raises UserError when nobody can leave this model at this layer."""
        if layer < model.num_blocks and model.heads is None:
            raise UserError(f"policy {self.spec} needs output heads, but this model has none: train its exits")
        if not model.has_exit(layer):
            raise UserError(f"policy {self.spec} leaves at layer {layer}, where this model has no trained exit")

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        """This policy with what it works out for a model and a solver's timesteps; asked once, before sampling.

        Under guidance the network is evaluated twice per step. Raises UserError when the model lacks what that needs.
        """
        return self

    def network(self, timestep: int) -> EarlyExitModel | None:
        """Another network that takes this timestep, in full; None: the model itself."""
        return None

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        """Layers at which samples leave whatever their u is; none where u decides."""
        return set()


def check_threshold(value: float) -> np.float32:
    """τ rounded to float32, once. Raises UserError outside [0, 1]."""
    if not 0 <= value <= 1:
        raise UserError(f"threshold is {value}, expected a number in [0, 1] (exit when u ≤ threshold)")
    return np.float32(value)


class Never(ExitPolicy):
    """The full network."""

    needs_heads = False
    spec = "never"

    def should_exit(self, state: LayerState) -> bool:
        return False


class Threshold(ExitPolicy):
    """Exit when u ≤ τ (DeeDiff/AdaDiff)."""

    needs_uncertainty = True

    def __init__(self, threshold: float):
        self.threshold = check_threshold(threshold)
        self.spec = f"threshold:{float(threshold)!r}"

    def should_exit(self, state: LayerState) -> Tensor:
        assert state.uncertainty is not None
        return state.uncertainty <= float(self.threshold)


class Patience(Threshold):
    """Exit when u ≤ τ; in the first half only if an earlier layer was certain as well (AdaDiff's public code)."""

    needs_lowest_uncertainty = True

    def __init__(self, threshold: float):
        super().__init__(threshold)
        self.spec = f"patience:{float(threshold)!r}"

    def should_exit(self, state: LayerState) -> Tensor:
        certain = super().should_exit(state)
        if state.layer > state.num_blocks // 2:
            return certain
        if state.lowest_uncertainty is None:
            return torch.zeros_like(certain)
        return certain & (state.lowest_uncertainty <= float(self.threshold))


class BatchMean(Threshold):
    """All samples of a batch exit together when their mean u is ≤ τ (AdaDiff's public code).

    For comparison: what a sample gets then depends on its neighbours and on the batch size.
    """

    decides_for_batch = True

    def __init__(self, threshold: float):
        super().__init__(threshold)
        self.spec = f"batch-mean:{float(threshold)!r}"

    def should_exit(self, state: LayerState) -> Tensor:
        assert state.uncertainty is not None
        return (state.uncertainty.mean() <= float(self.threshold)).expand(len(state.samples))


class Fixed(ExitPolicy):
    """Every sample leaves at the same layer at every step; the UEMs are not evaluated."""

    def __init__(self, layer: int):
        if layer < 0:
            raise UserError(f"policy fixed:{layer} leaves at layer {layer}, expected 0 … the number of blocks")
        self.layer = layer
        self.spec = f"fixed:{layer}"

    def should_exit(self, state: LayerState) -> bool:
        return state.layer >= self.layer  # above it, a bound kept them in

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        return {self.layer}

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        if self.layer > model.num_blocks:
            raise UserError(
                f"policy {self.spec}: this model has only {model.num_blocks} blocks; choose a layer up to that"
            )
        self.check_layer(model, self.layer)


class Bounded(ExitPolicy):
    """Another policy that may not leave before `lowest`, and that always leaves at `highest` if it is still in."""

    def __init__(self, inner: ExitPolicy, lowest: int = 0, highest: int | None = None):
        if lowest < 0 or (highest is not None and highest < lowest):
            raise UserError(f"layers run from {lowest} to {highest}, expected 0 ≤ min ≤ max")
        self.inner, self.lowest, self.highest = inner, lowest, highest
        bounds = [f"min:{lowest}"] * (lowest > 0) + [f"max:{highest}"] * (highest is not None)
        self.spec, self.content = ",".join([inner.spec, *bounds]), inner.content
        self.needs_uncertainty = inner.needs_uncertainty
        self.needs_lowest_uncertainty, self.decides_for_batch = inner.needs_lowest_uncertainty, inner.decides_for_batch
        self.seed = inner.seed

    def should_exit(self, state: LayerState) -> Tensor | bool:
        if state.layer < self.lowest:
            return False
        if self.highest is not None and state.layer >= self.highest:
            return True
        return self.inner.should_exit(state)

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        if max(self.lowest, self.highest or 0) > model.num_blocks:
            raise UserError(
                f"policy {self.spec} names a layer that this model has not: it has {model.num_blocks} blocks"
            )
        self.inner.check(model, schedule)
        if self.highest is not None:
            self.check_layer(model, self.highest)
        if any(layer < self.lowest for layer in self.inner.fixed_exit_layers(model)):  # exits there move to the bound
            self.check_layer(model, self.lowest)

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        return Bounded(self.inner.prepared(model, solver, guidance), self.lowest, self.highest)

    def network(self, timestep: int) -> EarlyExitModel | None:
        return self.inner.network(timestep)


class Replay(ExitPolicy):
    """Given exit layers, whatever the weights say: for benchmarks. Evaluates the UEMs like a threshold."""

    needs_uncertainty = True

    spec = "replay"

    def __init__(self, exit_layers: Tensor):  # (samples, steps)
        self.by_step = list(np.ascontiguousarray(exit_layers.cpu().numpy().T))

    def should_exit(self, state: LayerState) -> Tensor:
        leaves = torch.from_numpy(self.by_step[state.step][state.samples] == state.layer)
        # As late as a decision that waits for u.
        return leaves if state.uncertainty is None else leaves.to(state.uncertainty.device, non_blocking=True)
