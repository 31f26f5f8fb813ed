"""Numbers as text: differences with their sign."""

from __future__ import annotations


def signed(value: float, digits: int) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def percent(value: float, reference: float) -> str:
    """Signed difference from the full network."""
    change = (value / reference - 1) * 100
    return f"{change:+.1f}%".replace("-", "−") if abs(change) >= 0.05 else "±0%"
