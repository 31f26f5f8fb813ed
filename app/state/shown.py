"""What the page shows: figures and galleries in their order, for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import streamlit as st

SHOWN = "shown"  # session state


@dataclass(frozen=True)
class Shown:
    """A figure or a gallery."""

    title: str
    caption: str
    figure: dict[str, Any] | None = None  # as plotly.js takes it
    images: tuple[tuple[str, str], ...] = ()  # source and caption of each


def begin() -> None:
    """Forget the previous run of the script."""
    st.session_state[SHOWN] = {}


def add(key: str, shown: Shown) -> None:
    """Record a figure or a gallery; the same key replaces it, as a fragment does."""
    st.session_state.setdefault(SHOWN, {})[key] = shown


def everything() -> list[Shown]:
    """All of it, in the order of the page."""
    return list(st.session_state.get(SHOWN, {}).values())
