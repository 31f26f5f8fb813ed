"""What a file is that should hold weights: recognised by its first bytes."""

from __future__ import annotations

import codecs
import re
import zipfile
from pathlib import Path
from textwrap import shorten

from deediff.errors import UserError

ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}
EMA_FILES = ("nnet_ema.pth", "ema.pth", "ema.pt", "nnet.pth", "model.pth", "model.pt")  # of a training, best first


def weights_file(path: Path) -> Path:
    """The file itself, or the weights in a folder of an official training: `N.ckpt/`, or the folder of several.

    The averaged weights are preferred. Raises UserError when there are none.
    """
    if not path.is_dir():
        return path
    steps = [folder for folder in (*path.glob("*.ckpt"), *path.glob("ckpts/*.ckpt")) if folder.is_dir()]
    newest = max(steps, key=lambda folder: int("0" + "".join(re.findall(r"\d", folder.stem))), default=path)
    found = [newest / name for name in EMA_FILES if (newest / name).is_file()]
    if not found:
        raise UserError(
            f"{path} holds no weights: expected a file, or the folder N.ckpt of an official training with one of "
            f"{', '.join(EMA_FILES)}"
        )
    return found[0]


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name: the length of a header, and its brace."""
    with open(path, "rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 100 * 2**20


def strange_content(path: Path) -> str | None:
    """What a file is that holds no weights, in words, with the remedy; None where it may hold some."""
    with open(path, "rb") as file:
        start = file.read(512)
    text = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if not start:
        return "it is empty: download it again"
    if text.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file itself: run git lfs pull, or download it from its page"
    if text.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is an HTML page, probably of a failed or confirmed-by-hand download: download it again in a browser"
    if text.startswith(b"<?xml"):
        return "it is an XML page, probably a server's error: download it again"
    if _is_text(start):
        beginning = " ".join(start.removeprefix(codecs.BOM_UTF8).decode(errors="ignore").split())
        return f"it is text that begins with {shorten(beginning, 60, placeholder=' …')!r}: download it again"
    kind = next((kind for magic, kind in ARCHIVES.items() if start.startswith(magic)), None)
    if start[257:262] == b"ustar":
        kind = "a tar archive"
    if kind is None and start.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        kind = None if any(name.endswith("data.pkl") for name in names) else "a zip archive"
    return kind and f"it is {kind}, not the weights themselves: unpack it and import the file inside"


def _is_text(start: bytes) -> bool:
    """Whether the first bytes of a file are printable text; a character cut at the end is left out."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return all(sign.isprintable() or sign.isspace() or sign == "\ufeff" for sign in text)
