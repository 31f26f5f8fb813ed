"""A folder of photos as a data set."""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from deediff.errors import UserError
from deediff.photos.check import check_photos, reason_of
from deediff.photos.decode import VERSION, PixelFormat, read_photo
from deediff.photos.files import find_photos, natural_order
from deediff.photos.options import AS_SHOWN, PhotoOptions


class FolderImages:
    """Every picture below a folder, checked once: decoded on access, upright, resized, centre-cropped.

    Sub-folders are classes, numbered in natural order of their names (1, 2, 10). Raises UserError when there is no
    picture, and for unreadable files unless they are passed over.
    """

    def __init__(self, folder: Path, img_size: int, in_chans: int, options: PhotoOptions = AS_SHOWN):
        if in_chans not in (1, 3):
            raise UserError(f"pictures have 1 or 3 channels, but the model takes {in_chans}: give it 1 or 3")
        self.folder, self.options = folder, options
        self.img_size, self.in_chans = img_size, in_chans
        self.pixels = PixelFormat(img_size, in_chans, options.background)
        found = find_photos(folder)
        if not found.paths:
            raise UserError(
                f"no images below {folder}: expected pictures, for example .jpg or .png{_list_of(found.passed_over)}"
            )
        checked = check_photos(folder, found.paths, self.pixels)
        bad = {path: one.problem for path, one in zip(found.paths, checked, strict=True) if one.problem}
        if bad and not options.skip_bad:
            raise UserError(_bad_files(folder, bad, len(found.paths)))
        if len(bad) == len(found.paths):
            raise UserError(f"none of the {len(bad)} pictures below {folder} can be read{_list_of(found.passed_over)}")
        self.paths = [path for path in found.paths if path not in bad]
        self._classes = {self._class_of(path) for path in found.paths}
        self.passed_over: Counter[str] = found.passed_over + Counter({"unreadable": len(bad)})
        self._digests = [one.digest for one in checked if one.digest]
        self._lost: set[Path] = set()
        self._last: dict[str, Tensor] = {}  # class → the last picture read of it

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata and large sizes
            return torch.stack([self._load(i) for i in index.tolist()])

    def _load(self, index: int) -> Tensor:
        """(C,H,W) uint8: the picture or, where it was lost and `replace_lost`, the next one of its class.

        Where all of its class are lost, but not the disk: the last one of them that was read, else any picture.
        """
        label = self._class_of(self.paths[index])
        for path in self._following(index):
            try:
                found = torch.from_numpy(read_photo(path, self.pixels))
                if self._class_of(path) != label:
                    return self._last.get(label, found)
                if self.options.replace_lost:
                    self._last[label] = found
                return found
            except Exception as error:  # decoders raise anything
                sentence = f"{path} cannot be read as an image any more ({reason_of(error)})"
                if not self.options.replace_lost:
                    raise UserError(f"{sentence}: remove or replace it") from None
            if path not in self._lost:
                self._lost.add(path)
                print(f"warning: {sentence}: another one takes its place", file=sys.stderr)
        raise UserError(f"no picture below {self.folder} can be read any more: is its disk there?")

    def _following(self, index: int) -> Iterator[Path]:
        """The picture and all others, from it on in turn: those of its class, then those of other classes."""
        label = self._class_of(self.paths[index])
        for same in (True, False):
            for i in range(index, index + len(self)):
                path = self.paths[i % len(self)]
                if (self._class_of(path) == label) == same:
                    yield path

    def _class_of(self, path: Path) -> str:
        """The sub-folder that a picture is in, empty where it is in none."""
        first, *rest = path.relative_to(self.folder).parts
        return first if rest else ""

    @property
    def class_names(self) -> list[str] | None:
        """Names of the sub-folders with pictures, in natural order; None where a picture is in no sub-folder."""
        return None if "" in self._classes else sorted(self._classes, key=natural_order)

    def labels(self) -> Tensor:
        """(M,) int64 class of each picture. Raises UserError when one is in no sub-folder."""
        names = self.class_names
        if names is None:
            loose = next((path for path in self.paths if not self._class_of(path)), self.folder)
            raise UserError(f"{loose} has no class: expected every image in a sub-folder named after its class")
        numbers = {name: number for number, name in enumerate(names)}
        return torch.tensor([numbers[self._class_of(path)] for path in self.paths])

    def counts(self) -> dict[str, object]:
        """For run.json: numbers of files found and used, and of those passed over by reason."""
        passed_over = dict(self.passed_over.most_common())
        return {"found": len(self) + self.passed_over.total(), "used": len(self), "passed_over": passed_over}

    def summary(self) -> str:
        """The counts as a sentence."""
        found = self.counts()["found"]
        return f"{self.folder}: {found} files found, {len(self)} pictures used{_list_of(self.passed_over)}"

    def digest(self) -> str:
        """A digest of the files' contents and of how they are decoded, whatever their names and folder."""
        pixels = self.pixels
        content = hashlib.sha256(f"{VERSION} {pixels.size} {pixels.channels} {pixels.background}\n".encode())
        for one in sorted(self._digests):
            content.update(f"{one}\n".encode())
        return content.hexdigest()


def _bad_files(folder: Path, bad: dict[Path, str], total: int) -> str:
    """A sentence that lists all unreadable files."""
    files = "".join(f"\n  {_printable(path.relative_to(folder))}: {problem}" for path, problem in bad.items())
    return (
        f"{len(bad)} of {total} pictures below {folder} cannot be read: remove them, or pass them over with --skip-bad"
        f"{files}"
    )


def _printable(path: Path) -> str:
    """A file's name on one line: control characters, and bytes that are no UTF-8, as escapes."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(path))


def _list_of(passed_over: Counter[str]) -> str:
    if not passed_over:
        return ""
    return f"; passed over: {', '.join(f'{count} {reason}' for reason, count in passed_over.most_common())}"
