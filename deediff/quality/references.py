"""Real images in a feature space: computed once, then read from a cache."""

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
from deediff.quality.collect import Watch, features_of
from deediff.quality.extractors import Extractor
from deediff.quality.frechet import Gaussian, Moments
from deediff.quality.image_sets import RealImages
from deediff.quality.jackknife import Features
from deediff.storage import write_atomically

DEFAULT_CACHE = Path(os.environ.get("DEEDIFF_CACHE", Path.home() / ".cache" / "deediff" / "references"))
KEPT = 10_000  # features that are kept whole, for kernels and manifolds
CACHE_VERSION = 1


@dataclass(frozen=True, eq=False)
class Reference:
    """Real images in a feature space."""

    name: str
    key: str  # of the images, the extractor and what was kept
    count: int
    gaussian: Gaussian
    features: Features  # (≤ KEPT, D), a random choice

    @cached_property
    def kid_within(self) -> float:
        """What `kid` needs of this side."""
        return kernels.kid_within(self.features)

    @cached_property
    def cmmd_within(self) -> float:
        """What `cmmd` needs of this side."""
        return kernels.cmmd_within(self.features)

    @cached_property
    def radii(self) -> Tensor:
        """What `precision_recall` needs of this side."""
        return manifold.radii(self.features)


def reference_of(images: RealImages, extractor: Extractor, watch: Watch, cache: Path | None = None) -> Reference:
    """Computed once per set of images and extractor, then read from the cache."""
    cache = cache or DEFAULT_CACHE
    what = {"version": CACHE_VERSION, "images": images.digest(), "extractor": extractor.key, "kept": KEPT}
    key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    file = cache / f"{images.name}-{extractor.name}-{key}.npz"
    if file.exists():
        try:
            with np.load(file) as saved:
                gaussian = Gaussian(saved["mean"], saved["covariance"])
                return Reference(images.name, key, int(saved["count"]), gaussian, saved["features"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            file.unlink(missing_ok=True)  # damaged: compute it again
    with features_of(images, extractor, watch) as (_, features):
        if len(features) < 2:
            raise UserError(f"reference {images.name} holds {len(features)} image(s), expected at least two")
        origin = np.asarray(features[:KEPT], np.float64).mean(axis=0)
        gaussian = Moments.of(features, origin).gaussian(origin)
        kept = np.sort(np.random.default_rng(0).permutation(len(features))[:KEPT])
        reference = Reference(images.name, key, len(features), gaussian, np.array(features[kept]))
    _write(file, reference)
    return reference


def _write(file: Path, reference: Reference) -> None:
    """A cache that cannot be written costs time, not results."""
    buffer = io.BytesIO()
    np.savez(
        buffer, mean=reference.gaussian.mean, covariance=reference.gaussian.covariance,
        features=reference.features, count=reference.count,
    )  # fmt: skip
    try:
        write_atomically(file, buffer.getvalue(), sync=False)
    except OSError:
        return
