"""Training images: CIFAR-10, MNIST, or any folder of images, as uint8 tensors."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from deediff.errors import UserError

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
NAMED = ("cifar10", "mnist")
DEFAULT_ROOT = Path(os.environ.get("DEEDIFF_DATA", Path.home() / ".cache" / "deediff" / "data"))


class Images(Protocol):
    """A data set of images, indexed by a tensor of positions."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor:
        """(B,) positions → (B,C,H,W) uint8."""
        ...


def _image_files(folder: Path) -> list[Path]:
    """Sorted paths of the images below `folder`. Raises UserError when there are none."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise UserError(f"no images below {folder}: expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return paths


class FolderImages:
    """Every image below a folder: decoded on access, resized by the shorter side, centre cropped."""

    def __init__(self, folder: Path, img_size: int, in_chans: int):
        self.paths = _image_files(folder)
        self.img_size, self.in_chans = img_size, in_chans

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor) -> Tensor:
        return torch.stack([self._load(self.paths[i]) for i in index.tolist()])

    def _load(self, path: Path) -> Tensor:
        try:
            with Image.open(path) as file:
                image = file.convert("L" if self.in_chans == 1 else "RGB")
        except OSError as error:
            raise UserError(f"{path} cannot be read as an image ({error}): remove or replace it") from None
        scale = self.img_size / min(image.size)
        width, height = (max(self.img_size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
        left, top = (width - self.img_size) // 2, (height - self.img_size) // 2
        image = image.crop((left, top, left + self.img_size, top + self.img_size))
        pixels = torch.from_numpy(np.array(image))
        return pixels[None] if self.in_chans == 1 else pixels.permute(2, 0, 1)


def load_images(
    name: str,  # "cifar10", "mnist", or the path of a folder of images
    img_size: int,  # pixels per side; MNIST's 28 are padded, folders are resized
    in_chans: int,  # 1 or 3
    root: Path | None = None,  # folder in torchvision's layout; None: DEFAULT_ROOT
    train: bool = True,
    download: bool = True,
) -> Images:
    """Images of a data set. Raises UserError when it is neither on disk nor downloadable."""
    if name not in NAMED:
        return FolderImages(_folder(name), img_size, in_chans)

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


def load_labels(name: str, root: Path | None = None, train: bool = True) -> Tensor:
    """Class labels (M,) int64 of the images of `load_images`; in a folder of images, sub-folders are classes, by name.

    Raises UserError as `load_images` does, and when an image is in no sub-folder.
    """
    if name in NAMED:
        return torch.as_tensor(_named(name, root, train, download=True).targets, dtype=torch.int64)
    folder = _folder(name)
    inside = [path.relative_to(folder).parts for path in _image_files(folder)]
    if loose := [parts[0] for parts in inside if len(parts) == 1]:
        raise UserError(f"{folder / loose[0]} has no class: expected every image in a sub-folder named after its class")
    classes = {label: number for number, label in enumerate(sorted({parts[0] for parts in inside}))}
    return torch.tensor([classes[parts[0]] for parts in inside])


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
