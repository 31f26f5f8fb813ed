"""Features of a set of images, in a file, so that memory does not grow with the number of images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.errors import UserError
from deediff.quality.extractors import Extractor
from deediff.quality.image_sets import ImageSet
from deediff.quality.jackknife import Features, Groups
from deediff.quality.progress import Progress


@contextmanager
def features_of(images: ImageSet, extractor: Extractor, progress: Progress) -> Iterator[tuple[Groups, Features]]:
    """Numbers (n,) and features (n, D), the latter in a temporary file that is deleted on exit."""
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
                features = _reserved(Path(folder) / "features", total, found.shape[1])
            features[done : done + len(batch)], numbers[done : done + len(batch)] = found, batch
            done += len(batch)
            progress.report(f"{extractor.name} features of {images.name}", done, total)
        assert features is not None
        yield numbers, features
        del features


def _reserved(path: Path, rows: int, columns: int) -> NDArray[np.float32]:
    """A new array in a file whose room on the disk is reserved. Raises UserError where there is too little.

    Without the reservation, a write to a full disk would kill the process (SIGBUS).
    """
    size = 4 * rows * columns
    try:
        with open(path, "wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                for start in range(0, size, 2**20):
                    file.write(bytes(min(2**20, size - start)))
    except OSError as error:
        raise UserError(
            f"{path.parent.parent} has no room for {size / 1e6:.0f} MB of features ({error.strerror}): free some, or "
            "set TMPDIR to another folder"
        ) from None
    return np.memmap(path, np.float32, "r+", shape=(rows, columns))
