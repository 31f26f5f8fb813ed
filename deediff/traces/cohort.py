"""Some samples of a trace: their numbers as text and as a file, and the trace limited to them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.traces.reader import Trace
from deediff.traces.summary import Summary

MOST = 1_000_000  # samples of a cohort


def samples_to_text(samples: Collection[int]) -> str:
    """Sample numbers as ranges, ascending: {3, 7, 8, 9} → '3,7-9'."""
    found = list[tuple[int, int]]()
    for number in sorted(set(samples)):
        first = found.pop()[0] if found and found[-1][1] == number - 1 else number
        found.append((first, number))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def samples_from_text(text: str) -> tuple[int, ...]:
    """The inverse of `samples_to_text`. Raises UserError when the text is malformed."""
    numbers = set[int]()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last or len(numbers) + last - first >= MOST:
            raise UserError(f"{part.strip()[:40]!r} is no sample number and no range of them, expected e.g. 3,7-9")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def samples_to_csv(samples: Collection[int]) -> str:
    """A CSV with the column `sample`, which `read_samples` reads."""
    return "sample\n" + "".join(f"{number}\n" for number in sorted(samples))


def read_samples(path: Path) -> tuple[int, ...]:
    """Sample numbers of a CSV: its column `sample`. Raises UserError when the file is missing or malformed."""
    try:
        rows = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        if "sample" not in (rows.fieldnames or ()):
            raise ValueError("it has no column named sample")
        numbers = {int(str(row["sample"])) for row in rows}
        if not numbers or min(numbers) < 0:
            raise ValueError("it names no sample" if not numbers else f"{min(numbers)} is no sample number")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: expected a CSV with the column sample") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is no list of samples ({error}): expected a CSV with the column sample") from None
    return tuple(sorted(numbers))


@dataclass
class Cohort(Trace):
    """A trace of which only some samples are counted; made by `limit`."""

    numbers: NDArray[np.int64] = None  # type: ignore[assignment]  # (n,) ascending

    @cached_property
    def summary(self) -> Summary:
        """Sums over the samples of the cohort, counted from the rows."""
        total = Summary.empty(len(self.timesteps), self.num_blocks)
        for part, (numbers, layers) in zip(self.parts, super().iter_exit_layers(), strict=True):
            wanted = np.isin(numbers, self.numbers)
            if wanted.any():
                u = super().uncertainty(part)[wanted] if self.meta.has_uncertainty else None
                loss = super().deviation(part)[wanted] if self.meta.has_deviations else None
                total.add(layers[wanted], u, loss)
        return total

    def iter_exit_layers(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int8]]]:
        """Part by part: the cohort's sample numbers (B,), exit layers (B, S)."""
        for numbers, layers in super().iter_exit_layers():
            wanted = np.isin(numbers, self.numbers)
            yield numbers[wanted], layers[wanted]

    def uncertainty(self, part: int) -> NDArray[np.float32]:
        """(B, S, N) of the cohort's samples in one part."""
        return super().uncertainty(part)[self._in(part)]

    def deviation(self, part: int) -> NDArray[np.float32]:
        """(B, S, N) of the cohort's samples in one part."""
        return super().deviation(part)[self._in(part)]

    def _in(self, part: int) -> NDArray[np.bool_]:
        numbers = self._rows(part, ["sample"])["sample"].to_numpy()[:: len(self.timesteps)]
        return np.isin(numbers, self.numbers)


def limit(trace: Trace, samples: Collection[int]) -> Cohort:
    """The trace with these samples alone: exits, u and what-if are counted over them.

    Raises UserError when the trace has no rows, or lacks one of the samples.
    """
    if not trace.parts:
        raise UserError(f"{trace.path} has no rows to count samples in: the same sampling command writes them again")
    there = np.concatenate([numbers for numbers, _ in trace.iter_exit_layers()])
    wanted = np.unique(np.asarray(list(samples), dtype=np.int64))
    missing = np.setdiff1d(wanted, there)
    if len(missing) or not len(wanted):
        named = f"sample {missing[0]}" if len(missing) else "a sample"
        raise UserError(f"{trace.path} lacks {named}: it holds {len(there)} samples, {there.min()} … {there.max()}")
    found = Cohort(trace.path, trace.meta, trace.parts, trace.image_parts, trace.problems, wanted)
    exits, with_uem = found.summary.exits, trace.meta.policy_needs_uncertainty
    found.meta = replace(
        trace.meta,
        num_samples=len(wanted),
        layer_ratio=trace.cost.layer_ratio(exits),
        mean_gflops=trace.cost.mean_gflops(exits, with_uem),
        wall_seconds=None,  # not measured for some of the samples
    )
    return found
