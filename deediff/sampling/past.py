"""What a batch keeps of its earlier steps: predictions, full evaluations, and states of the network. Per sample."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy
from deediff.readouts import Readout, ReadoutState, StateReadout
from deediff.readouts.base import LogSNR
from deediff.readouts.extrapolation import extrapolation_weights
from deediff.readouts.memory import Memory, weighted

PREDICTIONS = 3  # as many as the highest order of extrapolation reads

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Past:
    """The past of a batch of samples. Its size depends on neither the number of steps nor that of batches."""

    def __init__(self, batch: int, slots: int, copies: int):
        self.earlier: list[tuple[LogSNR, Tensor]] = []  # log-SNR (B,), NaN: none; ε (B,C,H,W); the newest last
        self.last_full = np.full(batch, -1)  # (B,) step of the last full evaluation; −1: none
        self.states = Stored(batch, slots, copies)

    def drop(self) -> None:
        """Forget full evaluations: another network takes a step, and what this one stored no longer fits."""
        self.last_full[:] = -1
        self.states.evaluations[:] = 0

    def since_full(self, step: int) -> Ints:
        """(B,) steps from the last full evaluation to this step; 0 where there is none."""
        return np.where(self.last_full < 0, 0, step - self.last_full)

    def add(
        self, step: int, state: ReadoutState, epsilon: Tensor, predicted: NDArray[np.bool_], full: NDArray[np.bool_]
    ) -> None:
        """Take in a step: ε (B,C,H,W), which samples predicted it afresh (B,), and which ran the full network (B,)."""
        if predicted.any():
            self._add_prediction(state.log_snr, epsilon, predicted)
        self.last_full[full] = step
        self.states.count(full, state.log_snr)

    def _add_prediction(self, log_snr: float, epsilon: Tensor, predicted: NDArray[np.bool_]) -> None:
        if predicted.all():
            self.earlier = [*self.earlier[1 - PREDICTIONS :], (np.full(len(predicted), log_snr), epsilon)]
            return
        nothing = (np.full(len(predicted), np.nan), torch.zeros_like(epsilon))
        before = [*[nothing] * (PREDICTIONS - len(self.earlier)), *self.earlier]
        after = [*before[1:], (np.full(len(predicted), log_snr), epsilon)]
        mask = torch.from_numpy(predicted).to(epsilon.device).view(-1, 1, 1, 1)
        self.earlier = [
            (np.where(predicted, b[0], a[0]), torch.where(mask, b[1], a[1])) for a, b in zip(before, after, strict=True)
        ]


class Stored:
    """States of the last full evaluations of B samples; with guidance a pair of rows per sample."""

    def __init__(self, batch: int, slots: int, copies: int):
        self.batch, self.slots, self.copies = batch, slots, copies
        self.evaluations = np.zeros(
            batch, np.int64
        )  # (B,) full evaluations so far; the next one goes to slot n mod slots
        self.log_snr = np.full((slots, batch), np.nan)  # of the evaluation in each slot
        self._values: dict[int, Tensor] = {}  # key → (slots · B · copies, …)
        self._lock = threading.Lock()

    def count(self, full: NDArray[np.bool_], log_snr: float) -> None:
        """The samples (B,) that ran the full network at this step have their states in the next slot."""
        if self.slots:
            self.log_snr[self.evaluations[full] % self.slots, full.nonzero()[0]] = log_snr
        self.evaluations[full] += 1

    def write(self, rows: Ints, values: Mapping[int, Tensor]) -> None:
        """Store (copies·n, …) values of samples `rows` (n,), in place of their oldest ones."""
        for key, value in values.items():
            with self._lock:
                if key not in self._values:
                    shape = (self.slots * self.batch * self.copies, *value.shape[1:])
                    self._values[key] = value.new_zeros(shape)
            self._values[key].index_copy_(0, self._positions(rows, self.evaluations[rows], value), value)

    def read(self, rows: Ints, key: int, log_snr: float, order: int) -> list[Tensor]:
        """(copies·n, …) for each evaluation: its weight in the extrapolation to `log_snr`, times what was stored."""
        ages = range(min(order + 1, self.slots), 0, -1)  # the newest last
        turns = np.stack([self.evaluations[rows] - age for age in ages])  # (K, n)
        points = np.where(turns < 0, np.nan, self.log_snr[turns % self.slots, rows])
        weights = extrapolation_weights(points, log_snr, order)
        values, found = self._values[key], []
        for turn, weight in zip(turns, weights, strict=True):
            stored = values.index_select(0, self._positions(rows, turn, values))
            found.append(stored if order == 0 else weighted(stored, _repeated(weight, self.copies, values)))
        return found

    def _positions(self, rows: Ints, turns: Ints, like: Tensor) -> Tensor:
        """(copies·n,) positions of samples' rows in the storage."""
        first = ((turns % self.slots) * self.batch + rows) * self.copies
        return torch.from_numpy((first[:, None] + np.arange(self.copies)).ravel()).to(like.device)


def _repeated(weights: Floats, copies: int, like: Tensor) -> Tensor:
    return torch.from_numpy(np.repeat(weights, copies)).to(like.device)


Keepers = Mapping[str, tuple[StateReadout, frozenset[int]]]  # what full evaluations store: readouts, their layers


@dataclass(frozen=True, eq=False)
class Recall:
    """What one forward pass reads and stores of the past: B samples, from position `start` of the batch."""

    past: Past
    step: int
    log_snr: float
    readout: Readout | StateReadout | None = None  # of samples that exit; None: the output heads
    keepers: Keepers = field(default_factory=dict)
    start: int = 0

    @cached_property
    def layers(self) -> frozenset[int]:
        """The layers whose states full evaluations store."""
        return frozenset().union(*(layers for _, layers in self.keepers.values()))

    def part(self, start: int) -> Recall:
        """For consecutive samples from this position on."""
        return replace(self, start=self.start + start)

    def since_full(self, rows: Ints) -> Ints:
        """(n,) steps since the last full evaluation; 0: none."""
        return self.past.since_full(self.step)[self.start + rows]

    def store(self, rows: Ints, states: Mapping[int, Tensor], num_blocks: int) -> None:
        """Store layer → state (copies·n, …), layer N included, of samples that run the full network."""
        for readout, layers in self.keepers.values():
            self.past.states.write(self.start + rows, readout.kept(states, layers, num_blocks))

    def stored(self, readout: StateReadout, key: int, rows: Ints) -> list[Tensor]:
        """For each evaluation its weight times what was stored (copies·n, …)."""
        return self.past.states.read(self.start + rows, key, self.log_snr, readout.order)


def fill_in(readout: Readout, state: ReadoutState, output: Tensor, exited: NDArray[np.bool_]) -> Tensor:
    """(B,C,H,W) predictions in which a readout that runs no block has replaced those of the exited samples (B,)."""
    if not exited.any():
        return output
    return output.index_copy(0, _index(exited, output), readout.epsilon(reduced(state, exited)))


def reduced(state: ReadoutState, wanted: NDArray[np.bool_]) -> ReadoutState:
    """The state of some samples (B,)."""
    index = _index(wanted, state.x)
    earlier = [(np.broadcast_to(at, len(wanted))[wanted], eps[index]) for at, eps in state.earlier]
    return state._replace(x=state.x[index], earlier=earlier)


def _index(wanted: NDArray[np.bool_], like: Tensor) -> Tensor:
    return torch.from_numpy(wanted.nonzero()[0]).to(like.device)


def find_keepers(steps: Iterable[tuple[ExitPolicy, object]], model: EarlyExitModel) -> Keepers:
    """What full evaluations must store for steps of these policies and readouts of exits."""
    found: dict[str, tuple[StateReadout, frozenset[int]]] = {}
    for policy, readout in steps:
        if isinstance(readout, StateReadout):
            name = readout.spec.partition(":")[0] if isinstance(readout, Memory) else readout.spec
            layers = readout.kept_layers(policy.possible_exits(model), model.num_blocks)
            found[name] = readout, frozenset(layers | found.get(name, (readout, frozenset()))[1])
    return found
