"""Features of a set of images, kept on disk so that memory does not grow with their number."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.quality.extractors import Extractor
from deediff.quality.image_sets import ImageSet
from deediff.quality.jackknife import Features, Groups


class Stopped(Exception):
    """Whoever asked for the evaluation does not want it any more."""


@dataclass
class Watch:
    """Who is told how far it got, and asked whether to go on."""

    on_progress: Callable[[str, int, int], None] | None = None  # what, done, total
    cancelled: Callable[[], bool] | None = None

    def at(self, what: str, done: int, total: int) -> None:
        """Raises Stopped when cancelled."""
        if self.cancelled is not None and self.cancelled():
            raise Stopped
        if self.on_progress is not None:
            self.on_progress(what, done, total)


@contextmanager
def features_of(images: ImageSet, extractor: Extractor, watch: Watch) -> Iterator[tuple[Groups, Features]]:
    """Numbers (n,) and features (n, D), the latter in a temporary file that is gone afterwards."""
    total = len(images)
    numbers = np.empty(total, np.int64)
    with tempfile.TemporaryDirectory(prefix="deediff-") as folder:
        features: NDArray[np.float32] | None = None
        done = 0
        for batch, pixels in images.batches():
            found = extractor(pixels).numpy()
            if not np.isfinite(found).all():
                raise UserError(f"{extractor.name} gives values that are not finite for images of {images.name}")
            if features is None:
                features = np.memmap(Path(folder) / "features", np.float32, "w+", shape=(total, found.shape[1]))
            features[done : done + len(batch)], numbers[done : done + len(batch)] = found, batch
            done += len(batch)
            watch.at(f"{extractor.name} features of {images.name}", done, total)
        assert features is not None
        yield numbers, features
        del features
