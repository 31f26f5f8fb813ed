"""One picture file as the pixels that a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deediff.photos.color import flattened
from deediff.photos.files import picture_suffixes
from deediff.photos.options import Background

ORIENTATION = 0x0112  # the EXIF tag
TURNS = {  # its values 2 … 8
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DRAFT = 3  # a JPEG is decoded at no less than this multiple of the wanted size: the rest of the reduction is exact
VERSION = 2  # of the pixels that a file gives


@dataclass(frozen=True)
class PixelFormat:
    """The images of one data set."""

    size: int  # pixels per side
    channels: int  # 1 or 3
    background: Background = "white"  # behind transparent parts


def read_photo(file: Path | IO[bytes], wanted: PixelFormat) -> NDArray[np.uint8]:
    """(C, size, size): the first frame, upright, on the background, in sRGB, its centre square resized.

    Raises what the decoder raises.
    """
    picture_suffixes()  # loads the plugins
    with Image.open(file) as image:
        if image.format in ("JPEG", "MPO"):
            image.draft(None, (DRAFT * wanted.size, DRAFT * wanted.size))  # type: ignore[arg-type]
        image.load()
        picture = _centre(flattened(_upright(image), wanted.background), wanted.size)
    if wanted.channels == 1:
        return np.asarray(picture.convert("L"))[None]
    return np.ascontiguousarray(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; damaged EXIF data turn nothing."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises anything for damaged EXIF data
        return image
    return image if turn is None else image.transpose(turn)


def _centre(image: Image.Image, size: int) -> Image.Image:
    """The image resized by its shorter side and centre-cropped; only pixels of the square are computed."""
    scale = size / min(image.size)
    resized = [max(size, round(side * scale)) for side in image.size]
    left, top = ((side - size) // 2 for side in resized)
    x, y = image.width / resized[0], image.height / resized[1]  # pixels of the image per pixel of the result
    box = (left * x, top * y, min((left + size) * x, image.width), min((top + size) * y, image.height))
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)
