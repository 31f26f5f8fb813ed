"""Rows of the table by words and comparisons, and their order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pandas as pd


def filtered(table: pd.DataFrame, question: str) -> pd.DataFrame:
    """Rows in which every word occurs and every comparison (`gflops<0.3`, also ≤ ≥ > =) holds.

    A comparison names a column by a prefix. Raises ValueError, with one sentence, when it matches none.
    """
    for word in question.split():
        match = re.fullmatch(r"(\w+)(<=|>=|≤|≥|<|>|=)(-?[\d.]+)", word)
        if match is None:
            rows = table.select_dtypes(exclude="number").itertuples(index=False)
            table = table[[word.lower() in " ".join(map(str, row)).lower() for row in rows]]
            continue
        column = next((name for name in table.columns if name.startswith(match[1])), None)
        if column is None or not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"No numeric column starts with “{match[1]}”; there are {', '.join(_numbers(table))}.")
        table = table[_COMPARE[match[2]](table[column], float(match[3]))]
    return table


def ordered(table: pd.DataFrame, column: str, falling: bool) -> pd.DataFrame:
    """Sorted by a column, numerically or as text; stable, with empty cells last."""

    def comparable(values: pd.Series) -> pd.Series:
        return values if pd.api.types.is_numeric_dtype(values) else values.map(str, na_action="ignore")

    return table.sort_values(column, ascending=not falling, kind="stable", na_position="last", key=comparable)


def _numbers(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.select_dtypes("number").columns]


_COMPARE: dict[str, Callable[[Any, float], Any]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "=": lambda a, b: a == b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "≤": lambda a, b: a <= b,
    "≥": lambda a, b: a >= b,
}
