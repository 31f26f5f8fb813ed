"""Features of real images: shipped for the shipped extractors and the named data sets, else computed once and cached.

Shipped features are rounded to float16, mean and covariance are not: a Fréchet distance is the same as without them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deediff.errors import UserError
from deediff.photos.options import AS_SHOWN, PhotoOptions
from deediff.quality import kernels, manifold
from deediff.quality.collect import features_of
from deediff.quality.extractors import Extractor
from deediff.quality.frechet import FeatureMoments, Gaussian
from deediff.quality.image_sets import REFERENCES, RealImages, real_images
from deediff.quality.jackknife import LEAST, Features
from deediff.quality.progress import Progress
from deediff.storage import write_atomically

DEFAULT_CACHE = Path(os.environ.get("DEEDIFF_CACHE", Path.home() / ".cache" / "deediff" / "references"))
KEPT = 10_000  # features stored one by one, for kernels and manifolds
CACHE_VERSION = 1
SHIPPED = Path(__file__).parent / "statistics"


@dataclass(frozen=True, eq=False)
class Reference:
    """The features of a set of real images."""

    name: str
    key: str  # digest of the images, the extractor and KEPT
    count: int
    gaussian: Gaussian
    features: Features  # (≤ KEPT, D), a random subset; (0, D) where only the Gaussian is shipped

    @cached_property
    def kid_within(self) -> float:
        """`kid_within` of these features, for `kid`."""
        return kernels.kid_within(self.features)

    @cached_property
    def cmmd_within(self) -> float:
        """`cmmd_within` of these features, for `cmmd`."""
        return kernels.cmmd_within(self.features)

    @cached_property
    def radii(self) -> Tensor:
        """`manifold.radii` of these features, for `precision_recall`."""
        return manifold.radii(self.features)


def find_reference(
    name: str,  # cifar10-train, …, or a folder of images
    shape: tuple[int, int],  # channels, pixels per side
    extractor: Extractor,
    progress: Progress,
    data_root: Path | None = None,  # torchvision's folder: its images are read, whatever is shipped
    features: bool = True,  # whether single features are needed, beyond the Gaussian
    photos: PhotoOptions = AS_SHOWN,  # how a folder is read
) -> Reference:
    """The reference of a data set or a folder; without its images where it is shipped.

    Raises UserError when it is neither shipped nor found.
    """
    shipped = shipped_reference(name, shape, extractor) if data_root is None else None
    if shipped is not None and (len(shipped.features) or not features):
        return shipped
    return reference_of(real_images(name, *shape, data_root, photos=photos), extractor, progress)


def shipped_reference(name: str, shape: tuple[int, int], extractor: Extractor) -> Reference | None:
    """The shipped reference, if it is of this shape, these weights and this version; else None."""
    file = SHIPPED / f"{name}-{extractor.name}.npz"
    if name not in REFERENCES or not file.exists():
        return None
    with np.load(file) as saved:
        key = content_key(str(saved["images"]), extractor.key)
        if tuple(saved["shape"]) != shape or str(saved["key"]) != key:
            return None
        gaussian, features = Gaussian(saved["mean"], saved["covariance"]), saved["features"].astype(np.float32)
        return Reference(name, key, int(saved["count"]), gaussian, features)


def ship_reference(
    images: RealImages, shape: tuple[int, int], extractor: Extractor, progress: Progress, features: bool
) -> Path:
    """Compute the reference to be shipped for some images, with features or the Gaussian alone, and write it."""
    file, reference = SHIPPED / f"{images.name}-{extractor.name}.npz", reference_of(images, extractor, progress)
    gaussian, kept, buffer = reference.gaussian, reference.features[: None if features else 0], io.BytesIO()
    np.savez_compressed(
        buffer,
        key=reference.key,
        images=images.digest(),
        shape=shape,
        count=reference.count,
        mean=gaussian.mean,
        covariance=gaussian.covariance,
        features=kept.astype(np.float16),
    )
    write_atomically(file, buffer.getvalue())
    return file


def kept_rows(count: int) -> NDArray[np.int64]:
    """(≤ KEPT,) positions of the images whose features are stored one by one, of `count`; ascending."""
    return np.sort(np.random.default_rng(0).permutation(count)[:KEPT])


def content_key(images: str, extractor: str) -> str:
    """Digest of a reference's images and extractor, by their digests."""
    content = {"version": CACHE_VERSION, "images": images, "extractor": extractor, "kept": KEPT}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def reference_of(images: RealImages, extractor: Extractor, progress: Progress, cache: Path | None = None) -> Reference:
    """The reference of a set of images and an extractor, from the cache if it is there."""
    cache = cache or DEFAULT_CACHE
    key = content_key(images.digest(), extractor.key)
    file = cache / f"{images.name}-{extractor.name}-{key}.npz"
    if file.exists():
        try:
            with np.load(file) as saved:
                gaussian = Gaussian(saved["mean"], saved["covariance"])
                return Reference(images.name, key, int(saved["count"]), gaussian, saved["features"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            file.unlink(missing_ok=True)  # damaged: computed again
    with features_of(images, extractor, progress) as (_, features):
        if len(features) < LEAST:
            raise UserError(f"reference {images.name} holds {len(features)} images, expected at least {LEAST}")
        origin = np.asarray(features[:KEPT], np.float64).mean(axis=0)
        gaussian = FeatureMoments.of(features, origin).gaussian(origin)
        kept = np.array(features[kept_rows(len(features))])
        reference = Reference(images.name, key, len(features), gaussian, kept)
    _write(file, reference)
    return reference


def _write(file: Path, reference: Reference) -> None:
    """Write the cache; a failure costs time later, but is no error."""
    gaussian, buffer = reference.gaussian, io.BytesIO()
    features, count = reference.features, reference.count
    np.savez(buffer, mean=gaussian.mean, covariance=gaussian.covariance, features=features, count=count)
    try:
        write_atomically(file, buffer.getvalue(), sync=False)
    except OSError:
        return
