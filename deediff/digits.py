"""Whole numbers in texts that people write: policies, plans and links."""

from __future__ import annotations

MOST_DIGITS = 18  # fits 64 bits; Python refuses to read thousands of digits


def whole_number(text: str) -> int | None:
    """The number that a text of 1 … 18 digits writes; None for every other text."""
    return int(text) if text.isdecimal() and len(text) <= MOST_DIGITS else None
