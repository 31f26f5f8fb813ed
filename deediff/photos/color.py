"""Pixels of any mode as 8-bit sRGB or greys, as a viewer shows them."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from deediff.photos.options import Background

GREYS = ("1", "L", "LA", "La")
INTEGER_RANGES = ((0, 255), (0, 65535))
FLOAT_RANGES = ((0, 1), (0, 255))
SAME_COLOUR = 2  # levels of 255 within which a profile is sRGB: those of different makers are rounded differently


def flattened(image: Image.Image, background: Background) -> Image.Image:
    """The image in mode L or RGB: colours in sRGB, transparent parts on the background.

    Colours under full transparency do not reach the result. Greys of more than 8 bits are scaled by `scaled_greys`.
    """
    if image.mode.startswith(("I", "F")):
        return _without_transparent_greys(image, background)
    profile = image.info.get("icc_profile")
    if not image.has_transparency_data:
        return _in_srgb(image, profile)
    grey = image.mode in GREYS
    image = image.convert({"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}.get(image.mode, image.mode))
    image = image.convert("LA" if image.mode == "LA" else "RGBA")
    alpha = image.getchannel("A")
    colours = _in_srgb(image.convert("L" if grey else "RGB"), profile)
    canvas = Image.new(colours.mode, image.size, background)
    canvas.paste(colours, mask=alpha)
    return canvas


def scaled_greys(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float greys in mode L, scaled by the range of their kind.

    The range of 16 bits is 0 … 65535; that of 32-bit integers is 0 … 255 or 0 … 65535 and that of floats 0 … 1 or
    0 … 255, the first that holds all values; where none does, least and greatest value become black and white. Raises
    ValueError without a finite value.
    """
    values = np.asarray(image).astype(np.float64)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("it holds no finite value")
    low, high = float(finite.min()), float(finite.max())
    if image.mode.startswith("I;16"):
        ranges: tuple[tuple[int, int], ...] = INTEGER_RANGES[1:]
    else:
        ranges = FLOAT_RANGES if image.mode.startswith("F") else INTEGER_RANGES
    low, high = next((known for known in ranges if known[0] <= low and high <= known[1]), (low, high))
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    share = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return Image.fromarray((255 * share).round().astype(np.uint8))


def _without_transparent_greys(image: Image.Image, background: Background) -> Image.Image:
    """Scaled greys; those of the one value that a file declares transparent become the background."""
    transparent, greys = image.info.get("transparency"), scaled_greys(image)
    if isinstance(transparent, int):
        mask = Image.fromarray((np.asarray(image) == transparent).astype(np.uint8) * 255)
        greys.paste(Image.new("L", image.size, background), mask=mask)
    return greys


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours in sRGB by the embedded profile; a profile that is damaged or of another mode is ignored, as viewers do.

    CMYK without a profile is converted as Pillow does.
    """
    if image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("L" if image.mode in GREYS else "RGB")
    if profile or image.mode == "LAB":
        try:
            mode, transform = _to_srgb(profile if image.mode != "LAB" else None, image.mode)
            if transform is not None:
                return ImageCms.applyTransform(image.convert(mode), transform) or image
        except (ImageCms.PyCMSError, ImportError, OSError, TypeError, ValueError):
            pass
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes | None, mode: str) -> tuple[str, Any]:
    """The mode to transform from, and the transform to sRGB; None where it changes nothing. Raises as ImageCms.

    A profile's name does not say that it is sRGB: linear ones are called so, too.
    """
    found = ImageCms.createProfile("LAB") if profile is None else ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if profile is not None and mode == "L" and found.profile.xcolor_space.strip() == "RGB":  # type: ignore[union-attr]
        mode = "RGB"
    transform = ImageCms.buildTransform(found, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode != "RGB":
        return mode, transform
    levels = np.linspace(0, 255, 6).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(6, 36, 3)
    changed = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform)).astype(int)
    return mode, None if np.abs(changed - colours).max() <= SAME_COLOUR else transform
