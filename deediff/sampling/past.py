"""What a batch keeps of its earlier steps: predictions, full evaluations, and states of the network. Per sample."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.models import EarlyExitModel
from deediff.policies.base import ExitPolicy, PastView
from deediff.policies.remembering import FirstBlock
from deediff.readouts import Readout, ReadoutState, StateReadout
from deediff.readouts.base import LogSNR
from deediff.readouts.extrapolation import extrapolation_weights
from deediff.readouts.memory import Memory, weighted

PREDICTIONS = 3  # as many as the highest order of extrapolation reads

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Taken(NamedTuple):
    """How the samples of a batch took a step."""

    predicted: NDArray[np.bool_]  # (B,) whose prediction later readouts may reuse
    full: NDArray[np.bool_]  # (B,) that ran the model's full network
    signal: Tensor | None = None  # (B,) float32 that the policy compared, NaN where it was not asked
    reads_change: bool = False  # whether a policy reads the change between full predictions


class Past:
    """The past of a batch of samples. Its size depends on neither the number of steps nor that of batches."""

    def __init__(self, batch: int, slots: int, copies: int):
        self.earlier: list[tuple[LogSNR, Tensor]] = []  # log-SNR (B,), NaN: none; ε (B,C,H,W); the newest last
        self.last_full = np.full(batch, -1)  # (B,) step of the last full evaluation; −1: none
        self.states = Stored(batch, slots, copies)
        self.log_snr = np.nan  # of the step before
        self.carried = np.zeros(batch, np.float32)  # (B,) the policy's signal at the step before; 0: a full evaluation
        self.change = np.full(batch, np.nan, np.float32)  # (B,) RMS between the last two full predictions …
        self.interval = np.full(batch, np.nan, np.float32)  # … and the log-SNR between them
        self._full: tuple[Floats, Tensor] | None = None  # log-SNR (B,) and ε (B,C,H,W) of the last full evaluations
        self.input: Tensor | None = None  # (copies·B, …) state of layer 0 at the step before …
        self._next: Tensor | None = None  # … and at this one, where one was kept
        self._kept_input = False
        self._lock = threading.Lock()

    def drop(self) -> None:
        """Forget full evaluations: another network takes a step, and what this one stored no longer fits."""
        self.last_full[:] = -1
        self.states.evaluations[:] = 0
        self.carried[:], self.change[:], self.interval[:], self._full = 0, np.nan, np.nan, None

    def since_full(self, step: int) -> Ints:
        """(B,) steps from the last full evaluation to this step; 0 where there is none."""
        return np.where(self.last_full < 0, 0, step - self.last_full)

    def add(self, step: int, state: ReadoutState, epsilon: Tensor, taken: Taken) -> None:
        """Take in a step and its predictions ε (B,C,H,W)."""
        if taken.predicted.any():
            self._add_prediction(state.log_snr, epsilon, taken.predicted)
        if taken.reads_change and taken.full.any():
            self._add_change(state.log_snr, epsilon, taken.full)
        signal = self.carried if taken.signal is None else taken.signal.numpy()
        self.carried = np.where(taken.full, 0, np.where(np.isnan(signal), self.carried, signal)).astype(np.float32)
        self.last_full[taken.full] = step
        self.log_snr = state.log_snr
        if self._kept_input:
            self.input, self._next, self._kept_input = self._next, self.input, False
        self.states.count(taken.full, state.log_snr)

    def keep_input(self, rows: Ints, state: Tensor) -> None:
        """Keep the state of layer 0 (copies·n, …) of samples `rows` (n,) for the next step."""
        copies = self.states.copies
        with self._lock:
            if self._next is None:
                self._next = state.new_zeros(copies * len(self.last_full), *state.shape[1:])
            self._kept_input = True
        self._next.index_copy_(0, paired(rows, copies).to(state.device), state)

    def _add_change(self, log_snr: float, epsilon: Tensor, full: NDArray[np.bool_]) -> None:
        at = np.full(len(full), log_snr)
        if self._full is None:
            self._full = np.where(full, at, np.nan), epsilon
            return
        before, last = self._full
        change = (epsilon - last).flatten(1).square().mean(dim=1).sqrt().float().cpu().numpy()
        change = np.where(np.isnan(before), np.nan, change)
        self.change, self.interval = np.where(full, change, self.change), np.where(full, at - before, self.interval)
        mask = torch.from_numpy(full).to(epsilon.device).view(-1, 1, 1, 1)
        self._full = np.where(full, at, before), torch.where(mask, epsilon, last)

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
        self.evaluations = np.zeros(batch, np.int64)  # (B,) so far; the next full one goes to slot n mod slots
        self.log_snr = np.full((slots, batch), np.nan)  # of the evaluation in each slot
        self._values: dict[int, Tensor] = {}  # key → (slots · B · copies, …)
        self._lock = threading.Lock()

    def __contains__(self, key: int) -> bool:
        return key in self._values

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
        return paired((turns % self.slots) * self.batch + rows, self.copies).to(like.device)


def paired(rows: Ints, copies: int) -> Tensor:
    """(n,) samples → (copies·n,) their rows in the network."""
    return torch.from_numpy((rows[:, None] * copies + np.arange(copies)).ravel())


def _repeated(weights: Floats, copies: int, like: Tensor) -> Tensor:
    return torch.from_numpy(np.repeat(weights, copies)).to(like.device)


class Keeper(Protocol):
    """Says what a full evaluation stores."""

    order: int

    def kept(self, states: Mapping[int, Tensor], layers: Collection[int], num_blocks: int) -> dict[int, Tensor]:
        """Layer → state (n, …), layer N included → key → what is stored (n, …)."""


Keepers = Mapping[str, tuple[Keeper, frozenset[int]]]  # what full evaluations store, and the layers that it is made of


@dataclass(frozen=True, eq=False)
class Recall:
    """What one forward pass reads and stores of the past: B samples, from position `start` of the batch."""

    past: Past
    step: int
    log_snr: float
    readout: Readout | StateReadout | None = None  # of samples that exit; None: the output heads
    keepers: Keepers = field(default_factory=dict)
    keeps_input: bool = False  # whether a policy reads the state of layer 0 at the step before
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

    def view(self, rows: Ints, state: Callable[[int], Tensor], device: torch.device) -> PastView:
        """The past of samples `rows` (n,); `state` gives their states at this step."""
        past, at, copies = self.past, self.start + rows, self.past.states.copies
        carried, change, interval = (
            torch.from_numpy(values[at].astype(np.float32)).to(device)
            for values in (past.carried, past.change, past.interval)
        )
        before = None if past.input is None else past.input.index_select(0, paired(at, copies).to(device))
        return PastView(
            copies, carried, change, interval, self.log_snr - past.log_snr, before, state, partial(self._last, at)
        )

    def _last(self, at: Ints, key: int) -> Tensor | None:
        return self.past.states.read(at, key, self.log_snr, 0)[0] if key in self.past.states else None

    def keep_input(self, rows: Ints, state: Tensor) -> None:
        """Keep the state of layer 0 (copies·n, …) for the next step."""
        self.past.keep_input(self.start + rows, state)

    def store(self, rows: Ints, states: Mapping[int, Tensor], num_blocks: int) -> None:
        """Store layer → state (copies·n, …), layer N included, of samples that run the full network."""
        for keeper, layers in self.keepers.values():
            self.past.states.write(self.start + rows, keeper.kept(states, layers, num_blocks))

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
    found: dict[str, tuple[Keeper, frozenset[int]]] = {}
    for policy, readout in steps:
        if isinstance(policy.signaller, FirstBlock):
            found["first-block"] = policy.signaller, frozenset(policy.signaller.kept_layers())
        if isinstance(readout, StateReadout):
            name = readout.spec.partition(":")[0] if isinstance(readout, Memory) else readout.spec
            layers = readout.kept_layers(policy.possible_exits(model), model.num_blocks)
            keeper, before = found.get(name, (readout, frozenset()))
            deepest = readout if readout.order >= keeper.order else keeper
            found[name] = deepest, before | frozenset(layers)
    return found
