"""Images on screen, read from the page or from the pixels that the browser painted."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image
from playwright.sync_api import Locator


def grey(png: bytes) -> np.ndarray:
    """(H,W) 0 … 255."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=int)


def source(image: Locator) -> np.ndarray:
    """(H,W) the image of an <img>."""
    src = image.get_attribute("src") or ""
    return grey(base64.b64decode(src.partition("base64,")[2]))


def painted(stack: Locator, size: int) -> np.ndarray:
    """(size,size) a pair of images under a divider, read at the middle of every pixel of the image."""
    pixels = grey(stack.screenshot())
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in pixels.shape)
    return pixels[np.ix_(rows, columns)]


def check_divided(stack: Locator, left: np.ndarray, right: np.ndarray, place: float = 0.5) -> None:
    """The pair shows one image left of the divider, and the other right of it."""
    size = len(left)
    edge, seen = round(place * size), painted(stack, size)
    assert np.abs(seen[:, : edge - 2] - left[:, : edge - 2]).max(initial=0) <= 8
    assert np.abs(seen[:, edge + 2 :] - right[:, edge + 2 :]).max(initial=0) <= 8
    differs = np.abs(left - right) > 40  # else the check could not fail
    assert differs[:, : edge - 2].sum() + differs[:, edge + 2 :].sum() > 5
