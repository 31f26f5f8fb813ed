"""Results as people read them."""

from __future__ import annotations

from typing import Any


def show(result: dict[str, Any]) -> None:
    """Print a result for people: scalars as lines, lists of rows as tables."""
    for key, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            cells = [list(value[0])] + [[_format(cell) for cell in row.values()] for row in value]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            print()
            for line in cells:
                print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        elif isinstance(value, dict):
            print(f"{key}: " + ", ".join(f"{name} {_format(cell)}" for name, cell in value.items()))
        elif value not in (None, []):
            print(f"{key}: {_format(value)}")


def _format(value: Any) -> str:
    if isinstance(value, dict):  # a number and its interval
        return "{value:.4g} [{low:.4g}, {high:.4g}]".format(**value)
    return f"{value:.5g}" if isinstance(value, float) else "–" if value is None else str(value)
