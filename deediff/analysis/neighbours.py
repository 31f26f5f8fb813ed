"""Nearest neighbours of an image among generated and real ones, in the features of the built-in quality metric.

Nearness there means alike to the metric's network, not equal pixels: a generated image is suspected to be memorised
where a training image is nearer than to most held-out real images.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deediff.datasets import NAMED
from deediff.devices import choose_device
from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.quality import references
from deediff.quality.collect import features_of
from deediff.quality.evaluate import BUILT_IN
from deediff.quality.extractors import PIXELS, Extractor, load_extractor
from deediff.quality.image_sets import ImageSet, RealImages, TraceImages, held_out_of, real_images
from deediff.quality.progress import Progress
from deediff.quality.references import kept_rows, shipped_reference
from deediff.storage import AnyPath, write_atomically
from deediff.traces.reader import Trace
from deediff.traces.schema import samples_file

HELD_OUT = 1000  # real images in `held_out_distances`
Features = NDArray[np.float32]  # (n, D)
Numbers = NDArray[np.int64]  # (n,)
Distances = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Some images of a set, as features of one extractor."""

    name: str
    numbers: Numbers  # of samples, or positions in the data set
    features: Features
    total: int  # images of the set

    def nearest(self, features: Features, count: int, without: Collection[int] = ()) -> tuple[Numbers, Distances]:
        """The images nearest to one, (D,): numbers and Euclidean distances, ascending; equal ones by number.

        `without`: numbers that are left out, as the image itself.
        """
        others = ~np.isin(self.numbers, list(without))
        distances = np.linalg.norm(self.features[others].astype(np.float64) - features.astype(np.float64), axis=1)
        order = np.lexsort((self.numbers[others], distances))[:count]
        return self.numbers[others][order], distances[order]


def extractor_for(shape: tuple[int, int]) -> Extractor:
    """The extractor of the built-in metric for images of (channels, pixels per side); their pixels without one."""
    return load_extractor(BUILT_IN.get(shape, PIXELS), choose_device("auto"))


def training_set(run: AnyPath) -> str | None:
    """The images that a run was trained on, as `real_images` takes them; None where run.json names none."""
    name = str(read_json(run / "run.json").get("dataset") or "")
    return f"{name}-train" if name in NAMED else name if name and Path(name).expanduser().is_dir() else None


def training_images_here(name: str, shape: tuple[int, int]) -> RealImages:
    """The images of a data set that is on this machine. Raises UserError, which says where it was looked for."""
    try:
        return real_images(name, *shape, download=False)
    except UserError as error:
        raise UserError(f"The training images are not on this machine: {error}") from None


def embed_trace(trace: Trace, extractor: Extractor, progress: Progress | None = None) -> EmbeddedImages:
    """The images of a trace, by sample number; cached. Raises UserError when it has none."""
    files = [samples_file(trace.path, part).stat() for part in trace.image_parts]
    key = f"{trace.path} {[(file.st_size, file.st_mtime) for file in files]}"
    return _embed(TraceImages(trace), key, extractor, progress)


def embed_real(images: RealImages, extractor: Extractor, progress: Progress | None = None) -> EmbeddedImages:
    """All images of a data set, by their position in it; cached."""
    return _embed(images, images.digest(), extractor, progress)


def shipped_real(name: str, shape: tuple[int, int], extractor: Extractor) -> EmbeddedImages | None:
    """The random subset of a named data set whose features ship, without its images; None where none does."""
    found = shipped_reference(name, shape, extractor)
    if found is None or not len(found.features):
        return None
    return EmbeddedImages(name, kept_rows(found.count), found.features, found.count)


def held_out_distances(reference: EmbeddedImages, shape: tuple[int, int], extractor: Extractor) -> Distances:
    """(≤ HELD_OUT,) the distance of real images that are not in the reference to the nearest in it; empty if none ship.

    A generated image is nearer to a training image than chance explains where few of these are smaller.
    """
    other = held_out_of(reference.name)
    held_out = None if other is None else shipped_real(other, shape, extractor)
    return np.zeros(0) if held_out is None else nearest_distances(held_out.features[:HELD_OUT], reference.features)


def nearest_distances(features: Features, among: Features) -> Distances:
    """(m, D), (n, D) → (m,) the distance of each of the first to the nearest of the second."""
    import torch

    first, second = (torch.from_numpy(np.asarray(values, np.float32)) for values in (features, among))
    found = [torch.cdist(part, second).amin(dim=1) for part in first.split(100)]
    return torch.cat(found).numpy().astype(np.float64)


def principal_axes(features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (n, D) → their first two principal components (n, 2), and the share of the variance of each (2,).

    The sign of an axis makes its largest loading positive, so that the map is the same in every session.
    """
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred)
    axes, total = axes[:, [-1, -2]], variances.sum()
    largest = np.abs(axes).argmax(axis=0)
    axes *= np.where(axes[largest, [0, 1]] < 0, -1, 1)
    return centred @ axes, variances[[-1, -2]] / total if total > 0 else np.zeros(2)


def _file(images: ImageSet, key: str, extractor: Extractor) -> Path:
    digest = hashlib.sha256(f"{key} {extractor.key}".encode()).hexdigest()[:16]
    return references.DEFAULT_CACHE / f"{images.name}-{extractor.name}-all-{digest}.npz"


def _read(file: Path, images: ImageSet) -> EmbeddedImages | None:
    try:
        with np.load(file) as saved:
            return EmbeddedImages(images.name, saved["numbers"], saved["features"], len(saved["numbers"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # missing or damaged: computed again


def _embed(images: ImageSet, key: str, extractor: Extractor, progress: Progress | None) -> EmbeddedImages:
    file = _file(images, key, extractor)
    if (known := _read(file, images)) is not None:
        return known
    with features_of(images, extractor, progress or Progress()) as (numbers, features):
        found = EmbeddedImages(images.name, numbers, np.array(features), len(numbers))
    buffer = io.BytesIO()
    np.savez(buffer, numbers=found.numbers, features=found.features)
    with suppress(OSError):  # computed again next time
        write_atomically(file, buffer.getvalue(), sync=False)
    return found
