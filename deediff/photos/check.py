"""One pass over all pictures before they are used: each is decoded once, in parallel; the result is remembered."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import PIL
from tqdm import tqdm

from deediff.errors import UserError
from deediff.json_files import read_json
from deediff.photos.decode import VERSION, PixelFormat, read_photo
from deediff.photos.files import picture_suffixes
from deediff.storage import write_atomically

DEFAULT_CACHE = Path(os.environ.get("DEEDIFF_CACHE", Path.home() / ".cache" / "deediff" / "photos"))


class Checked(NamedTuple):
    """One picture file."""

    digest: str  # of its bytes; empty where it cannot be read
    problem: str  # why it cannot be read; empty where it can


def check_photos(folder: Path, paths: Sequence[Path], wanted: PixelFormat, cache: Path | None = None) -> list[Checked]:
    """Decode every picture once; those found readable before, of equal size and time, are not decoded again."""
    file = (cache or DEFAULT_CACHE) / f"photos-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"
    version = [VERSION, PIL.__version__, len(picture_suffixes())]
    known = _remembered(file, version)
    stamps = [_stamp(path) for path in paths]
    digests = {path: known.get(_key(path, stamp), "") for path, stamp in zip(paths, stamps, strict=True)}
    new = [path for path in paths if not digests[path]]
    found: dict[Path, Checked] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata and large sizes
        results = pool.map(partial(_check, wanted=wanted), new)
        bar = tqdm(results, total=len(new), desc="check pictures", unit="file", disable=None if new else True)
        found.update(zip(new, bar, strict=True))
    if any(checked.digest for checked in found.values()):
        digests |= {path: checked.digest for path, checked in found.items()}
        readable = {_key(p, stamp): digests[p] for p, stamp in zip(paths, stamps, strict=True) if digests[p]}
        with suppress(OSError):  # costs time later, but is no error
            write_atomically(file, json.dumps({"version": version, "files": readable}).encode(), sync=False)
    return [found.get(path) or Checked(digests[path], "") for path in paths]


def _check(path: Path, wanted: PixelFormat) -> Checked:
    try:
        data = path.read_bytes()
        if not data:
            return Checked("", "it is empty")
        read_photo(io.BytesIO(data), wanted)
    except Exception as error:  # decoders raise anything
        return Checked("", reason_of(error))
    return Checked(hashlib.sha256(data).hexdigest(), "")


def reason_of(error: BaseException) -> str:
    """The message of a decoder or the file system on one line, without the path."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is no picture of a known format"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text[:200] or type(error).__name__


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size in bytes and time of the last change in nanoseconds."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


def _key(path: Path, stamp: tuple[int, int] | None) -> str:
    return f"{path.absolute()} {stamp}"


def _remembered(file: Path, version: list[Any]) -> dict[str, str]:
    """Digests of readable files by `_key`; empty where there are none of this version."""
    try:
        content = read_json(file)
        return dict(content["files"]) if content["version"] == version else {}
    except (UserError, KeyError, TypeError, ValueError):
        return {}
