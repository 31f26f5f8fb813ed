"""Policies that compare a signal with δ: what changed since a sample's last full evaluation, or what that will cost."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from deediff.diffusion.schedule import Schedule
from deediff.errors import UserError
from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, LayerState, PastView


class SignalPolicy(ExitPolicy):
    """Exit while the signal is at most δ, and at most `cap` steps in a row."""

    remembers = True
    signal_layer: int = 0  # the layer at whose input the signal is computed, and at which samples exit

    def __init__(self, name: str, delta: float, cap: int | None = None):
        if not delta >= 0:
            raise UserError(f"policy {name}:{delta:g} has δ = {delta:g}, expected a number ≥ 0")
        if cap is not None and cap < 1:
            raise UserError(f"policy {name}:{delta:g} has cap {cap}, expected 1 or more steps in a row")
        self.delta, self.cap = delta, cap
        self.spec = f"{name}:{delta!r}" + (f",cap:{cap}" if cap is not None else "")

    @property
    def signaller(self) -> SignalPolicy:
        return self

    @abstractmethod
    def measured(self, state: LayerState, past: PastView) -> Tensor:
        """(k,) float32 the signal, NaN where it is not known."""

    def signal(self, state: LayerState, past: PastView) -> Tensor:
        """(k,) float32 the signal, NaN where the full network runs whatever it is."""
        assert state.since_full is not None
        asked = state.since_full > 0 if self.cap is None else (state.since_full > 0) & (state.since_full <= self.cap)
        found = self.measured(state, past)
        return found if asked.all() else found.masked_fill(~torch.from_numpy(asked).to(found.device), torch.nan)

    def should_exit(self, state: LayerState) -> Tensor | bool:
        return False if state.signal is None else state.signal <= self.delta

    def fixed_exit_layers(self, model: EarlyExitModel) -> set[int]:
        return {self.signal_layer}

    def check(self, model: EarlyExitModel, schedule: Schedule | None = None) -> None:
        super().check(model, schedule)
        self.check_layer(model, self.signal_layer)


def relative_change(now: Tensor, before: Tensor, copies: int, together: bool = False) -> Tensor:
    """mean|now − before| / mean|before|: (copies·k, …) → (k,); `together`: of the whole batch, the same for all."""
    difference, size = (
        values.flatten(1).abs().mean(dim=1).float().view(-1, copies).mean(dim=1) for values in (now - before, before)
    )
    if together:
        difference, size = difference.mean().expand_as(difference), size.mean().expand_as(size)
    return difference / size


def read_options(name: str, argument: str, flags: tuple[str, ...] = ()) -> tuple[float, int | None, set[str]]:
    """'δ', 'δ,cap:K', with further words → δ, K, the words. Raises UserError for unknown ones, ValueError for no δ."""
    delta, *options = argument.split(",")
    cap, found = None, set[str]()
    for option in options:
        if option in flags:
            found.add(option)
        elif option.startswith("cap:") and option[4:].isdecimal():
            cap = int(option[4:])
        else:
            known = " or ".join(["cap:K", *flags])
            raise UserError(f"policy {name}:{argument} has the option {option!r}, expected {known}")
    return float(delta), cap, found
