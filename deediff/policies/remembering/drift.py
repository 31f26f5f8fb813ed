"""Reuse a sample's last full evaluation until the loss predicted from its own drift exceeds δ."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from deediff.calibration.drift import drift_of, foreseen
from deediff.diffusion.solvers import Solver
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState, PastView
from deediff.policies.remembering.signal import SignalPolicy, read_options


class Drift(SignalPolicy):
    """Exit at layer 0 while Σ g(t)·d ≤ δ, summed over the steps since the sample's last full evaluation.

    d is the RMS change between its last two full predictions, scaled to the log-SNR of the step; g(t) is measured by
    `deediff calibrate`. A sample with fewer than two full predictions runs the full network.
    """

    reads_change = True
    reads_past_only = True

    def __init__(self, delta: float, cap: int | None = None):
        super().__init__("drift", delta, cap)
        self.gains: Tensor | None = None  # (S,)

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        table = drift_of(model, self.spec)
        ready = copy.copy(self)
        ready.gains = torch.from_numpy(table.gains(list(solver.timesteps)).astype(np.float32))
        ready.content = {"drift_sha256": table.sha256}
        return ready

    def measured(self, state: LayerState, past: PastView) -> Tensor:
        assert self.gains is not None, "call prepared() first"
        found: Tensor = past.carried + self.gains[state.step] * foreseen(past.change, past.interval, past.ahead)
        return found


def read_drift(argument: str) -> Drift:
    """'δ' or 'δ,cap:K' → policy. Raises UserError, and ValueError when δ is not a number."""
    delta, cap, _ = read_options("drift", argument)
    return Drift(delta, cap)
