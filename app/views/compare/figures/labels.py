"""Labels beside points: where they cover nothing, or not at all, because hovering shows them as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

CHARACTER, LINE = 6.6, 14.0  # pixels of a character and of a line of text
BESIDE, ABOVE = 14.0, 9.0  # pixels between a point and its label

Line = tuple[float, float, float, float]  # x, y of one end and of the other


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y upward."""

    left: float
    bottom: float
    right: float
    top: float

    def covers(self, other: Box) -> bool:
        """Whether they share any pixel."""
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def distance(self, x: float, y: float) -> float:
        """Pixels from a point to the nearest edge; 0 within."""
        return hypot(max(self.left - x, 0, x - self.right), max(self.bottom - y, 0, y - self.top))

    def meets(self, line: Line) -> bool:
        """Whether a straight line runs through it."""
        x0, y0, x1, y1 = line
        first, last = 0.0, 1.0  # part of the line within the box, by the axes so far
        for start, length, low, high in ((x0, x1 - x0, self.left, self.right), (y0, y1 - y0, self.bottom, self.top)):
            if length == 0:
                if not low <= start <= high:
                    return False
                continue
            enter, leave = sorted(((low - start) / length, (high - start) / length))
            first, last = max(first, enter), min(last, leave)
        return first < last


def placed(x: float, y: float, text: str, position: str) -> Box:
    """The box of a label of a point at (x, y), in one of Plotly's positions."""
    width = CHARACTER * len(text)
    left = {"left": x - BESIDE - width, "center": x - width / 2, "right": x + BESIDE}[position.split()[1]]
    bottom = {"top": y + ABOVE, "middle": y - LINE / 2, "bottom": y - ABOVE - LINE}[position.split()[0]]
    return Box(left, bottom, left + width, bottom + LINE)


POSITIONS = (
    "middle right",
    "top right",
    "bottom right",
    "middle left",
    "top left",
    "bottom left",
    "top center",
    "bottom center",
)


def place(
    points: Sequence[tuple[float, float, str]],  # (x, y, text) in pixels, the most important first
    obstacles: Sequence[Box],  # marks and bars, of the same points or of others
    around: Box,  # area available for labels
    lines: Sequence[Line] = (),  # avoided where there is a choice
) -> list[str | None]:
    """A position for every label, greedily.

    None where it would cover something, be nearer to another point, or repeat an equal label there.
    """
    taken = list(obstacles)
    found: list[str | None] = []
    labelled: set[tuple[str, int, int]] = set()
    for x, y, text in points:
        found.append(None)
        if (text, round(x), round(y)) in labelled:
            continue
        best: Box | None = None
        for position in POSITIONS:
            box = placed(x, y, text, position)
            if not _inside(box, around) or any(box.covers(other) for other in taken):
                continue
            if any(box.distance(u, v) <= box.distance(x, y) for u, v, _ in points if (u, v) != (x, y)):
                continue  # it would be read as the other point's label
            clear = not any(box.meets(line) for line in lines)
            if best is None or clear:
                best, found[-1] = box, position
            if clear:
                break
        if best is not None:
            taken.append(best)
            labelled.add((text, round(x), round(y)))
    return found


def _inside(box: Box, around: Box) -> bool:
    return (
        around.left <= box.left and box.right <= around.right and around.bottom <= box.bottom and box.top <= around.top
    )
