"""The interface of an exit policy.

To add a policy: subclass `ExitPolicy` in a file of its own and add a line to `registry.py`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.traces.meta import TraceMeta

if TYPE_CHECKING:
    from deediff.policies.remembering.signal import SignalPolicy


class LayerState(NamedTuple):
    """The samples at the input of one block, at one denoising step."""

    layer: int  # 0 … N−1: number of blocks already run
    num_blocks: int  # N
    step: int  # denoising step 0, 1, …
    timestep: int  # diffusion t
    samples: NDArray[np.int64]  # (k,) sample numbers
    uncertainty: Tensor | None = None  # (k,) u of this layer, if the policy needs it
    lowest_uncertainty: Tensor | None = None  # (k,) smallest u of the earlier layers, if the policy needs it
    signal: Tensor | None = None  # (k,) what a policy with memory compares; None: not computed yet
    since_full: NDArray[np.int64] | None = None  # (k,) steps since the last full evaluation, 0: none; None: not known


class PastView(NamedTuple):
    """The past of the samples of a `LayerState`, for a policy that computes a signal."""

    copies: int  # rows of the network per sample: 2 with guidance
    carried: Tensor  # (k,) float32 the signal at the step before; 0 after a full evaluation
    change: Tensor  # (k,) float32 RMS change of ε between the last two full evaluations; NaN: fewer, or not requested
    interval: Tensor  # (k,) float32 the log-SNR between these two …
    ahead: float  # … and between the step before and this one
    previous_input: Tensor | None  # (copies·k, …) the state of layer 0 at the step before, if the policy keeps it
    state: Callable[[int], Tensor]  # layer → state (copies·k, …) at this step, of layers that the policy keeps
    stored: Callable[[int], Tensor | None]  # key → (copies·k, …) what the last full evaluation stored; None: nothing


class ExitPolicy(ABC):
    """Decides for each sample whether it exits at a layer. `spec` is the text that `make_policy` reads."""

    needs_uncertainty: bool = False  # the UEM of every layer up to the exit is evaluated
    needs_lowest_uncertainty: bool = False  # reads `LayerState.lowest_uncertainty`
    needs_heads: ClassVar[bool] = True
    decides_for_batch: bool = False  # the decision depends on the whole batch: no micro-batches
    remembers: bool = False  # the decision depends on the sample's earlier steps
    reads_past_only: bool = False  # the decision at layer 0 needs nothing of the step itself
    reads_change: bool = False  # reads `PastView.change`
    keeps_input: bool = False  # reads `PastView.previous_input`
    reads_heads: bool = True  # exits are read out by output heads; False: by another readout, at any layer
    spec: str
    content: Any = None  # JSON of the file that `spec` names, stored with a trace
    seed: int | None = None  # the only seed that the policy is valid for; None: any
    recording: TraceMeta | None = None  # the trace whose noise the sampling must have; None: any

    @property
    def signaller(self) -> SignalPolicy | None:
        """The policy that computes the signal which this one compares; None without one."""
        return None

    @abstractmethod
    def should_exit(self, state: LayerState) -> Tensor | bool:
        """(k,) bool: the samples that exit at this layer; or one bool for all of them."""

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        """Raises UserError when the model lacks what this policy needs."""
        if self.needs_uncertainty and model.uem is None:
            raise UserError(f"policy {self.spec} needs UEMs, but this model has none: use 'never', or train its exits")
        if self.needs_heads and self.reads_heads and model.heads is None:
            raise UserError(f"policy {self.spec} needs output heads, but this model has none: train its exits")

    def check_layer(self, model: EarlyExitModel, layer: int) -> None:
        """Raises UserError when this model has no exit at this layer."""
        if not self.reads_heads:
            return
        if layer < model.num_blocks and model.heads is None:
            raise UserError(f"policy {self.spec} needs output heads, but this model has none: train its exits")
        if not model.has_exit(layer):
            raise UserError(f"policy {self.spec} exits at layer {layer}, where this model has no trained exit")

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        """This policy with everything that depends on the model and the solver's timesteps computed.

        Called before sampling; calling it again is harmless. With guidance the network is evaluated twice per
        step. Raises UserError when model, solver and guidance do not fit the policy.
        """
        return self

    def network(self, timestep: int) -> EarlyExitModel | None:
        """Another network that is evaluated in full at this timestep; None: the model itself."""
        return None

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        """Exit layers that do not depend on u; empty when all of them do."""
        return set()

    def possible_exits(self, model: EarlyExitModel) -> set[int]:
        """Every layer below N at which a sample may exit."""
        queried = range(model.num_blocks) if model.uem is None else model.uem.layers
        return (self.fixed_exit_layers(model) or set(queried)) - {model.num_blocks}

    def read_out_by_others(self) -> ExitPolicy:
        """This policy with exits that no output head reads out."""
        other = copy.copy(self)
        other.reads_heads = False
        return other
