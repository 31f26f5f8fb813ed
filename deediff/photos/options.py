"""How a folder of photos is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Background = Literal["white", "black"]


@dataclass(frozen=True)
class PhotoOptions:
    """How a folder of photos is read."""

    background: Background = "white"
    """Folders of images: colour behind transparent parts."""
    skip_bad: bool = False
    """Folders of images: pass unreadable files over."""
    replace_lost: bool = False
    """A file lost after the check is replaced by the next one of its class, with a warning."""


AS_SHOWN = PhotoOptions()
