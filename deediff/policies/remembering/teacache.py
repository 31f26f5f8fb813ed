"""TeaCache (Liu et al. 2024, arXiv 2411.19108): the change of the embedded input foretells that of the output."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from deediff.calibration.drift import drift_of
from deediff.diffusion.solvers import Solver
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState, PastView
from deediff.policies.remembering.signal import SignalPolicy, read_options, relative_change


class TeaCache(SignalPolicy):
    """Exit at layer 0 while Σ p(mean|m_s − m_{s−1}| / mean|m_{s−1}|) ≤ δ over the steps since the last full evaluation.

    m is the sample's embedded input h_0 at every step; the polynomial p is fitted by `deediff calibrate`.
    """

    keeps_input = True

    def __init__(self, delta: float, cap: int | None = None):
        super().__init__("teacache", delta, cap)
        self.polynomial: list[float] | None = None  # highest power first

    def prepared(self, model: EarlyExitModel, solver: Solver, guidance: float | None = None) -> ExitPolicy:
        table = drift_of(model, self.spec)
        ready = copy.copy(self)
        ready.polynomial = np.asarray(table.polynomial).tolist()
        ready.content = {"drift_sha256": table.sha256}
        return ready

    def measured(self, state: LayerState, past: PastView) -> Tensor:
        assert self.polynomial is not None, "call prepared() first"
        if past.previous_input is None:
            return torch.full((len(state.samples),), torch.nan, device=past.carried.device)
        change = relative_change(past.state(0), past.previous_input, past.copies)
        rescaled = torch.zeros_like(change)
        for coefficient in self.polynomial:  # Horner's scheme
            rescaled = rescaled * change + coefficient
        return past.carried + rescaled


def read_teacache(argument: str) -> TeaCache:
    """'δ' or 'δ,cap:K' → policy. Raises UserError, and ValueError when δ is not a number."""
    delta, cap, _ = read_options("teacache", argument)
    return TeaCache(delta, cap)
