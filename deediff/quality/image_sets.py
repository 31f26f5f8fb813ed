"""Sets of images, read in batches: the images of a trace, a split of a data set, or a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deediff.datasets import NAMED, FolderImages, Images, load_images
from deediff.errors import UserError
from deediff.photos.options import AS_SHOWN, PhotoOptions
from deediff.traces.images import decode_png
from deediff.traces.reader import Trace

BATCH = 256
REFERENCES = tuple(f"{name}-{split}" for name in NAMED for split in ("train", "test"))  # by name; others are folders


class ImageSet(Protocol):
    """Numbered images of one size."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Numbers (B,), images (B,C,H,W) uint8."""
        ...


@dataclass(frozen=True)
class TraceImages:
    """The images of a trace. Raises UserError when it has none."""

    trace: Trace

    def __post_init__(self) -> None:
        if not len(self):
            raise UserError(f"{self.trace.path} holds no images, so there is nothing to evaluate")

    @property
    def name(self) -> str:
        """The trace's folder."""
        return self.trace.path.name

    def __len__(self) -> int:
        return sum(len(numbers) for numbers, _ in self.trace.iter_images())

    def batches(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Part by part."""
        for numbers, pngs in self.trace.iter_images():
            for start in range(0, len(numbers), BATCH):
                pixels = [_decode(png) for png in pngs[start : start + BATCH]]
                yield numbers[start : start + BATCH], torch.from_numpy(np.stack(pixels))

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and pixels per side."""
        _, images = next(self.batches())
        return images.shape[1], images.shape[3]


def _decode(png: bytes) -> NDArray[np.uint8]:
    """(C,H,W)."""
    pixels = decode_png(png)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


@dataclass(frozen=True)
class RealImages:
    """A split of a data set (cifar10-train, mnist-test, …) or a folder of images."""

    name: str
    images: Images

    def __len__(self) -> int:
        return len(self.images)

    def batches(self) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """In the order of the data set."""
        for index in torch.arange(len(self)).split(BATCH):
            yield index.numpy(), self.images[index]

    def digest(self) -> str:
        """A digest of the pixels; for a folder of the files' contents, wherever it is."""
        if isinstance(self.images, FolderImages):
            return self.images.digest()
        content = hashlib.sha256()
        for _, batch in self.batches():
            content.update(batch.numpy().tobytes())
        return content.hexdigest()


def real_images(
    name: str,
    channels: int,
    size: int,
    root: Path | None = None,
    download: bool = True,
    photos: PhotoOptions = AS_SHOWN,
) -> RealImages:
    """`cifar10-train`, `mnist-test`, …, or a folder, whose images are resized and centre-cropped to `size`.

    Raises UserError when it does not exist or does not fit.
    """
    dataset, _, split = name.rpartition("-")
    if name in REFERENCES:
        return RealImages(name, load_images(dataset, size, channels, root, split == "train", download))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"reference {name!r} is neither cifar10-train, cifar10-test, mnist-train, mnist-test nor a folder of images"
        )
    return RealImages(folder.resolve().name, FolderImages(folder, size, channels, photos))


def held_out_of(reference: str) -> str | None:
    """The other split of a named reference: real images that its statistics do not include; None for a folder."""
    dataset, _, split = reference.rpartition("-")
    return f"{dataset}-{'test' if split == 'train' else 'train'}" if reference in REFERENCES else None
