"""Results as text, and numbers as JSON has them."""

from __future__ import annotations

import math
from dataclasses import asdict, is_dataclass
from typing import Any


def as_text(result: dict[str, Any]) -> str:
    """Scalars as lines, lists of rows as tables; rows may lack columns."""
    lines: list[str] = []
    for key, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            columns = list(dict.fromkeys(name for row in value for name in row))
            cells = [columns] + [[format_cell(row.get(name)) for name in columns] for row in value]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            lines.append("")
            for line in cells:
                lines.append("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
        elif isinstance(value, dict):
            lines.append(f"{key}: " + ", ".join(f"{name} {format_cell(cell)}" for name, cell in value.items()))
        elif value not in (None, [], ""):
            lines.append(f"{key}: {format_cell(value)}")
    return "\n".join(lines)


def format_cell(value: Any) -> str:
    """One value; a dict is a number with its interval, if it has one."""
    if isinstance(value, dict):
        if value["low"] is None:
            return format_cell(value["value"])
        return "{value:.4g} [{low:.4g}, {high:.4g}]".format(**value)
    return f"{value:.5g}" if isinstance(value, float) else "–" if value is None else str(value)


def json_number(value: Any) -> Any:
    """A number, or an estimate (a dataclass with a `value`) as a dict. NaN, which JSON lacks, becomes None."""
    if is_dataclass(value) and not isinstance(value, type):
        content = asdict(value)
        return None if math.isnan(content["value"]) else {key: json_number(part) for key, part in content.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
