"""Exits by deviations that are known in advance: a bound on what a policy that reads u alone can reach."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.diffusion.solvers import Solver
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState
from deediff.policies.from_trace.budget import gflops_and_trace
from deediff.policies.from_trace.oracle_exits import oracle_exits
from deediff.traces.reader import Trace


class Oracle(ExitPolicy):
    """Exit where the deviations from the full network, recorded in advance, are least in total within the budget.

    The deviations are those of the full network's trajectories of the same seed, so the exits are fixed in advance
    (open loop); exits change the trajectories, the deviations do not follow.
    """

    exit_layers: NDArray[np.int8] | None = None  # (samples, S)

    def __init__(self, gflops: float, trace: Trace):
        if not (trace.meta.has_deviations and trace.meta.is_full and trace.meta.complete):
            raise UserError(
                f"{trace.path} does not hold the full network's deviations: sample one with "
                "--policy never --record full --deviations, to its end"
            )
        if not trace.parts:
            raise UserError(f"{trace.path} has no rows, and an oracle needs the deviations of each sample")
        self.gflops, self.trace, self.recording = gflops, trace, trace.meta
        self.spec, self.seed = f"oracle:{gflops!r}@{trace.path}", trace.meta.seed

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        if list(solver.timesteps) != self.trace.timesteps:
            raise UserError(
                f"policy {self.spec}: that trace has other timesteps; record one with this solver and steps"
            )
        if model.origin is not None and model.origin[1] != self.trace.meta.checkpoint_sha256:
            raise UserError(f"policy {self.spec}: that trace was sampled from other weights; record one of this model")
        if guidance != self.trace.meta.guidance:
            raise UserError(
                f"policy {self.spec}: that trace has guidance {self.trace.meta.guidance}, this sampling "
                f"{guidance}; record one with the same"
            )
        ready = copy.copy(self)
        ready.exit_layers = oracle_exits(self.trace, self.gflops)
        return ready

    def should_exit(self, state: LayerState) -> Tensor:
        assert self.exit_layers is not None, "call prepared() first"
        if state.samples.max() >= len(self.exit_layers):
            raise UserError(
                f"policy {self.spec}: that trace holds {len(self.exit_layers)} samples; sample no more than those"
            )
        return torch.from_numpy(self.exit_layers[state.samples, state.step] <= state.layer)

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        return {layer for layer in range(model.num_blocks) if model.has_exit(layer)}


def read_oracle(argument: str) -> Oracle:
    """'GFLOPs@TRACE' → policy. Raises UserError as `gflops_and_trace`, and when the trace has no deviations."""
    return Oracle(*gflops_and_trace("oracle", argument))
