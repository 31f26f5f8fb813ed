"""Features of plans that were sampled, in files: a plan is never sampled twice with the same noise."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deediff.plans import Plan
from deediff.quality.jackknife import Features
from deediff.search.judge import Judge, plan_digest
from deediff.storage import write_atomically


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """Features of samples 0, 1, … of a plan and a seed; more samples are added to those that are there."""

    judge: Judge
    folder: Path

    def features(self, plan: Plan, seed: int, count: int, known: Features | None = None) -> Features:
        """(count, D); `known` are those of the first samples, if they have just been drawn."""
        file = self._file(plan, seed)
        found = [part for part in (self._read(file), known) if part is not None]
        longest = max(found, key=len, default=None)
        done = 0 if longest is None else len(longest)
        if done < count:
            rest = self.judge.draw(plan, seed, range(done, count)).features
            longest = rest if longest is None else np.concatenate([longest, rest])
            self._write(file, longest)
        assert longest is not None
        return longest[:count]

    def _file(self, plan: Plan, seed: int) -> Path:
        """The name holds all that the features depend on."""
        weights = "none" if self.judge.model.origin is None else self.judge.model.origin[1][:8]
        content = self.judge.content(plan)[:8]
        name = f"{plan_digest(plan)}-{content}-{weights}-{self.judge.extractor_key}-{seed}.npz"
        return self.folder / "features" / name

    def _read(self, file: Path) -> Features | None:
        try:
            with np.load(file) as saved:
                features: Features = saved["features"]
                return features
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # damaged: sampled again
            return None

    def _write(self, file: Path, features: Features) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, features=features)
        write_atomically(file, buffer.getvalue(), sync=False)
