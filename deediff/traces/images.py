"""The stored images of a trace."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deediff.errors import UserError


def decode_png(png: bytes) -> NDArray[np.uint8]:
    """PNG bytes → (H,W) grey or (H,W,3) RGB. Raises UserError when they are damaged."""
    try:
        return np.array(Image.open(io.BytesIO(png)))
    except (OSError, ValueError, SyntaxError) as error:  # as PIL's readers do
        raise UserError(
            f"a stored image is damaged ({type(error).__name__}): delete the trace's samples-*.parquet, and run the "
            "same sampling command again"
        ) from None
