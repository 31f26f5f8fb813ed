"""Training images: CIFAR-10, MNIST, or any folder of images (`deediff.photos`), as uint8 tensors."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from torch import Tensor

from deediff.errors import UserError
from deediff.photos.folder import FolderImages
from deediff.photos.options import AS_SHOWN, PhotoOptions

NAMED = ("cifar10", "mnist")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEFAULT_ROOT = Path(os.environ.get("DEEDIFF_DATA", Path.home() / ".cache" / "deediff" / "data"))


class Images(Protocol):
    """A data set of images, indexed by a tensor of positions."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """(B,) positions → (B,C,H,W) uint8."""
        ...


def load_images(
    name: str,  # "cifar10", "mnist", or the path of a folder of images
    img_size: int,  # pixels per side; MNIST's 28 are padded, folders are resized
    in_chans: int,  # 1 or 3
    root: Path | None = None,  # folder in torchvision's layout; None: DEFAULT_ROOT
    train: bool = True,
    download: bool = True,
    photos: PhotoOptions = AS_SHOWN,  # of a folder
) -> Images:
    """Images of a data set. Raises UserError when it is neither on disk nor downloadable, or does not fit."""
    if name not in NAMED:
        return FolderImages(_folder(name), img_size, in_chans, photos)

    data = _named(name, root, train, download)
    pixels = torch.as_tensor(data.data)  # CIFAR-10 (M,32,32,3), MNIST (M,28,28)
    pixels = pixels.permute(0, 3, 1, 2) if pixels.ndim == 4 else pixels[:, None]
    if pixels.shape[1] != in_chans:
        raise UserError(f"{name} has {pixels.shape[1]} channel(s), the model takes {in_chans}: choose another preset")
    border = img_size - pixels.shape[-1]
    if border < 0 or border % 2 or (border and name != "mnist"):
        raise UserError(
            f"{name} has {pixels.shape[-1]}×{pixels.shape[-1]} pixels, the model takes {img_size}×{img_size}"
        )
    return torch.nn.functional.pad(pixels, [border // 2] * 4).contiguous()


def load_labels(
    name: str,
    root: Path | None = None,
    train: bool = True,
    images: Images | None = None,  # those of `load_images`; None: all of the folder that can be read
) -> Tensor:
    """Class labels (M,) int64; in a folder of images, sub-folders are classes, in natural order of their names.

    Raises UserError as `load_images` does, and when an image is in no sub-folder.
    """
    if isinstance(images, FolderImages):
        return images.labels()
    if name not in NAMED:
        return FolderImages(_folder(name), 32, 3, PhotoOptions(skip_bad=True)).labels()
    return torch.as_tensor(_named(name, root, train, download=True).targets, dtype=torch.int64)


def class_names(name: str, images: Images | None) -> tuple[str, ...]:
    """Names of the labels of `load_labels`, in order; empty where they have none."""
    if isinstance(images, FolderImages):
        return tuple(images.class_names or ())
    return CIFAR10_CLASSES if name == "cifar10" else ()


def _folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(f"data set {name!r} is neither cifar10, mnist nor an existing folder of images")
    return folder


def _named(name: str, root: Path | None, train: bool, download: bool) -> Any:
    """torchvision's data set."""
    from deediff import _torchvision  # noqa: F401, I001  (must come before torchvision)
    from torchvision import datasets

    root = Path(root or DEFAULT_ROOT).expanduser()
    kind = datasets.CIFAR10 if name == "cifar10" else datasets.MNIST
    try:
        return kind(str(root), train=train, download=False)
    except RuntimeError:
        try:
            if not download:
                raise OSError("downloading is off")
            root.mkdir(parents=True, exist_ok=True)
            return kind(str(root), train=train, download=True)
        except Exception as error:  # urllib, ssl, file system: torchvision does not wrap them
            reason = shorten(" ".join(str(error).split()), 160, placeholder=" …")
            raise UserError(
                f"{name} was not found in {root} and could not be downloaded ({reason}): "
                "put it there in torchvision's layout, or point --data-root, or the environment's DEEDIFF_DATA, at a "
                "folder that holds it"
            ) from None


def to_model_range(images: Tensor) -> Tensor:
    """uint8 [0, 255] → float32 [−1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """float [−1, 1] → uint8 [0, 255], clamped and rounded."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
