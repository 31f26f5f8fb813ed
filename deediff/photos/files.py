"""The pictures below a folder, and what is passed over."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

SYSTEM = {  # files and folders that operating systems and tools leave between photos, in lower case
    "__macosx",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "icon\r",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "lost+found",
    "system volume information",
}
NO_PHOTOS = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MPEG", "PDF", "WMF"}  # formats of Pillow that are no pictures
PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif", ".hif": "pillow-heif", ".jxl": "pillow-jxl-plugin"}
Identity = tuple[int, int]  # device and number of a folder, whatever its path


class FoundFiles(NamedTuple):
    """The pictures below a folder."""

    paths: list[Path]  # sorted
    passed_over: Counter[str]  # reason → number of files or folders

    @property
    def total(self) -> int:
        """Pictures, and files and folders passed over."""
        return len(self.paths) + self.passed_over.total()


@cache
def picture_suffixes() -> frozenset[str]:
    """Suffixes of the formats that Pillow opens here, in lower case, those of installed plugins included."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401  (registers itself)
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in Image.OPEN and name not in NO_PHOTOS)


def find_photos(folder: Path) -> FoundFiles:
    """Every picture below a folder, by its suffix or, without a suffix, its content.

    Links to folders are followed, those within one class to each folder once. Hidden files and folders, and those of
    operating systems, are passed over.
    """
    passed_over: Counter[str] = Counter()
    paths = sorted(_below(folder, (), set(), passed_over))
    return FoundFiles(paths, passed_over)


def natural_order(name: str) -> tuple[Any, ...]:
    """A sort key: 1, 2, 10 instead of 1, 10, 2; upper and lower case together."""
    parts = re.split(r"([0-9]+)", name.casefold())  # text, digits, text, …
    return (*(int(part) if i % 2 else part for i, part in enumerate(parts)), name)


def _below(
    folder: Path,
    above: tuple[Identity, ...],  # the folders on the way to it
    linked: set[Identity],  # folders that links in this class lead to: each is read once
    passed_over: Counter[str],
) -> Iterator[Path]:
    """The pictures below one folder."""
    try:
        here = _identity(folder)
        if here in above:
            passed_over["links to a folder above"] += 1
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        passed_over["folders that cannot be opened"] += 1
        return
    for entry in entries:
        path = folder / entry.name
        if entry.name.lower() in SYSTEM:
            passed_over["system files"] += 1
        elif entry.name.startswith("."):
            passed_over["hidden"] += 1
        elif _is(entry.is_dir):
            seen = linked if above else set()  # the sub-folders of the first one are classes
            if _is(entry.is_symlink) and (target := _identity(path)) not in (*above, here):
                if target in seen:
                    passed_over["further links to a folder"] += 1
                    continue
                seen.add(target)
            yield from _below(path, (*above, here), seen, passed_over)
        elif reason := _not_a_picture(entry):
            passed_over[reason] += 1
        else:
            yield path


def _identity(folder: Path) -> Identity:
    info = folder.stat()
    return info.st_dev, info.st_ino


def _not_a_picture(entry: os.DirEntry[str]) -> str | None:
    """Why a file is passed over; None for a picture, even an unreadable one."""
    suffix = Path(entry.name).suffix.lower()
    if suffix and suffix not in picture_suffixes():
        package = PLUGINS.get(suffix)
        return f"{suffix}, which needs {package}" if package else suffix
    if not _is(entry.is_file):
        return None if suffix and _is(entry.is_symlink) else "neither files nor folders"  # a broken link: unreadable
    return None if suffix or _opens(entry.path) else "files without a suffix"


def _is(question: Any) -> bool:
    """The answer of a DirEntry; False where the file system refuses it."""
    try:
        return bool(question())
    except OSError:
        return False


def _opens(path: str) -> bool:
    """Whether a file begins as a picture does."""
    try:
        with Image.open(path):
            return True
    except Exception:  # decoders raise anything
        return False
