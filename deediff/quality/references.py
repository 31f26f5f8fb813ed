"""Features of real images, computed once and cached."""

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
from torch import Tensor

from deediff.errors import UserError
from deediff.quality import kernels, manifold
from deediff.quality.collect import features_of
from deediff.quality.extractors import Extractor
from deediff.quality.frechet import FeatureMoments, Gaussian
from deediff.quality.image_sets import RealImages
from deediff.quality.jackknife import Features
from deediff.quality.progress import Progress
from deediff.storage import write_atomically

DEFAULT_CACHE = Path(os.environ.get("DEEDIFF_CACHE", Path.home() / ".cache" / "deediff" / "references"))
KEPT = 10_000  # features stored one by one, for kernels and manifolds
CACHE_VERSION = 1


@dataclass(frozen=True, eq=False)
class Reference:
    """The features of a set of real images."""

    name: str
    key: str  # digest of the images, the extractor and KEPT
    count: int
    gaussian: Gaussian
    features: Features  # (≤ KEPT, D), a random subset

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


def reference_of(images: RealImages, extractor: Extractor, progress: Progress, cache: Path | None = None) -> Reference:
    """The reference of a set of images and an extractor, from the cache if it is there."""
    cache = cache or DEFAULT_CACHE
    content = {"version": CACHE_VERSION, "images": images.digest(), "extractor": extractor.key, "kept": KEPT}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    file = cache / f"{images.name}-{extractor.name}-{key}.npz"
    if file.exists():
        try:
            with np.load(file) as saved:
                gaussian = Gaussian(saved["mean"], saved["covariance"])
                return Reference(images.name, key, int(saved["count"]), gaussian, saved["features"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            file.unlink(missing_ok=True)  # damaged: computed again
    with features_of(images, extractor, progress) as (_, features):
        if len(features) < 2:
            raise UserError(f"reference {images.name} holds {len(features)} image(s), expected at least two")
        origin = np.asarray(features[:KEPT], np.float64).mean(axis=0)
        gaussian = FeatureMoments.of(features, origin).gaussian(origin)
        kept = np.sort(np.random.default_rng(0).permutation(len(features))[:KEPT])
        reference = Reference(images.name, key, len(features), gaussian, np.array(features[kept]))
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
