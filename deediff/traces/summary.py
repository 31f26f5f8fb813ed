"""Sums over samples, accumulated while rows are written: analyses need not read the rows again.

The main one is a histogram, per step and layer, of the *running minimum* min_{j≤i} u_j: a sample has
exited by layer i under threshold τ exactly when that minimum is ≤ τ. (A histogram of each u alone
would count samples that had already exited.)
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.storage import AnyPath, write_atomically
from deediff.traces.schema import FORMAT_VERSION, THRESHOLDS

NEW = ("signals", "signal_sum", "age_sum")  # which summaries of earlier versions lack

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Summary:
    """Sums over samples; S steps, N blocks, K = 201 thresholds. Adding two gives that of both."""

    samples: Ints  # () number of samples
    exits: Ints  # (S, N+1) samples that exited at each layer
    running_min: Ints | NDArray[np.int32]  # (S, N, K+1) samples whose running minimum lies in (τ_{k−1}, τ_k]
    u_count: Ints  # (S, N) values of u
    u_sum: Floats  # (S, N)
    u_square_sum: Floats  # (S, N)
    deviation_sum: Floats  # (S, N); zero when not recorded
    deviation_count: Ints  # (S, N)
    signals: Ints  # (S, K+1) samples whose signal lies in (τ_{k−1}, τ_k]; zero where a policy compares none
    signal_sum: Floats  # (S,)
    age_sum: Ints  # (S,) steps since the last full evaluation, over the samples that had one

    @classmethod
    def empty(cls, steps: int, blocks: int) -> Summary:
        """All sums zero."""
        layers = (steps, blocks)
        return cls(
            samples=np.zeros((), np.int64),
            exits=np.zeros((steps, blocks + 1), np.int64),
            running_min=np.zeros((steps, blocks, len(THRESHOLDS) + 1), np.int64),
            u_count=np.zeros(layers, np.int64),
            u_sum=np.zeros(layers),
            u_square_sum=np.zeros(layers),
            deviation_sum=np.zeros(layers),
            deviation_count=np.zeros(layers, np.int64),
            signals=np.zeros((steps, len(THRESHOLDS) + 1), np.int64),
            signal_sum=np.zeros(steps),
            age_sum=np.zeros(steps, np.int64),
        )

    def add(
        self,
        exit_layer: NDArray[np.int8],  # (B, S)
        uncertainty: NDArray[np.float32] | None,  # (B, S, N), NaN where not evaluated; None: there is none
        deviation: NDArray[np.float32] | None = None,  # (B, S, N)
    ) -> Summary:
        """Count whole samples in. Returns self."""
        samples, steps = exit_layer.shape
        blocks = self.u_count.shape[-1]
        self.samples += samples
        for layer in range(blocks + 1):
            self.exits[:, layer] += (exit_layer == layer).sum(axis=0)
        if uncertainty is None:
            return self
        known = ~np.isnan(uncertainty)
        self.u_count += known.sum(axis=0)
        self.u_sum += np.nansum(uncertainty, axis=0, dtype=np.float64)
        self.u_square_sum += np.nansum(np.square(uncertainty, dtype=np.float64), axis=0)
        # After an exit the minimum keeps its value; before the first u it is NaN, which has no bin.
        minimum = np.fmin.accumulate(uncertainty, axis=-1)
        bins = np.searchsorted(THRESHOLDS, minimum, side="left")  # smallest τ_k ≥ minimum
        flat = (np.arange(steps * blocks).reshape(steps, blocks) * (len(THRESHOLDS) + 1) + bins)[~np.isnan(minimum)]
        self.running_min += np.bincount(flat, minlength=self.running_min.size).reshape(self.running_min.shape)
        if deviation is not None:
            self.deviation_sum += deviation.sum(axis=0, dtype=np.float64)
            self.deviation_count += len(deviation)
        return self

    def add_memory(self, signal: NDArray[np.float32], since_full: NDArray[np.int16]) -> Summary:
        """Count in what a policy with memory compared, and its age: (B, S) each. Returns self."""
        known = ~np.isnan(signal)
        bins = np.searchsorted(THRESHOLDS, signal, side="left")  # smallest τ_k ≥ signal
        for step in range(signal.shape[1]):
            self.signals[step] += np.bincount(bins[known[:, step], step], minlength=self.signals.shape[1])
        self.signal_sum += np.nansum(signal, axis=0, dtype=np.float64)
        self.age_sum += since_full.clip(min=0).sum(axis=0, dtype=np.int64)
        return self

    def __iadd__(self, other: Summary) -> Summary:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        return self

    def exits_of(self, left_by: NDArray[Any]) -> Ints:
        """(S, N) samples that have exited by layer i → (S, N+1) samples that exited at each layer."""
        return np.diff(left_by, axis=1, prepend=0, append=self.samples)

    def left_by(self) -> NDArray[np.int32]:
        """(K, S, N): samples that have exited by layer i under each threshold."""
        return np.cumsum(np.moveaxis(self.running_min[:, :, :-1], -1, 0), axis=0, dtype=np.int32)

    def mean_uncertainty(self) -> Floats:
        """(S, N) mean u over the samples that reached the layer; NaN where none reached it."""
        return np.divide(self.u_sum, self.u_count, out=np.full(self.u_sum.shape, np.nan), where=self.u_count > 0)

    def save(self, path: AnyPath) -> None:
        """Write atomically."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays["running_min"] = arrays["running_min"].astype(np.int32)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, format_version=FORMAT_VERSION, thresholds=THRESHOLDS, **arrays)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: AnyPath) -> Summary:
        """Raises UserError when the file is missing, corrupt, or on another grid of thresholds."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                if file["format_version"] != FORMAT_VERSION or not np.array_equal(file["thresholds"], THRESHOLDS):
                    raise UserError(f"{path} has another format or grid of thresholds: sample the trace again")
                names = [field.name for field in fields(cls)]
                arrays = {name: file[name] for name in names if name in file or name not in NEW}
        except FileNotFoundError:
            raise UserError(
                f"{path} does not exist: the trace is not complete, run the same sampling command again"
            ) from None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{path} is not a readable summary ({error}): delete it and run the sampling command again"
            ) from None
        empty = cls.empty(*arrays["u_count"].shape)
        return cls(**{name: getattr(empty, name) for name in NEW} | arrays)
