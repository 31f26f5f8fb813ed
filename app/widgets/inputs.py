"""Widgets whose values stand in the URL, and that keep them from page to page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import streamlit as st

from app.state import link

T = TypeVar("T")
Number = TypeVar("Number", int, float)


def selectbox(label: str, options: Sequence[T], key: str, first: T | None = None, **more: Any) -> T:
    """`st.selectbox`; `first` is chosen at first, else the first option."""
    shown = _default(key, options[0] if first is None else first, _among(options))
    place = 0 if shown is None else options.index(shown)
    return _written(key, st.selectbox(label, options, place, key=key, persist_state="session", **more))


def segmented_control(label: str, options: Sequence[T], key: str, first: T, **more: Any) -> T:
    """`st.segmented_control` of which one is always chosen."""
    shown = _default(key, first, _among(options))
    chosen = st.segmented_control(
        label, options, default=shown, required=True, key=key, persist_state="session", **more
    )  # fmt: skip
    return _written(key, first if chosen is None else chosen)


def number_input(label: str, low: Number, high: Number, key: str, first: Number, **more: Any) -> Number:
    """`st.number_input`."""
    shown = _default(key, first, _between(low, high))
    value = st.number_input(label, low, high, low if shown is None else shown, key=key, persist_state="session", **more)
    return _written(key, value)


def optional_number(label: str, key: str, **more: Any) -> float | None:
    """`st.number_input` of a number ≥ 0, or none."""
    asked = _asked(key, _between(0.0, 1e300))  # a browser knows no infinity
    shown = link.default(key, st.session_state.get(key) if asked is None else asked)
    return _written(key, st.number_input(label, 0.0, None, shown, key=key, persist_state="session", **more))


def slider(
    label: str, low: Number, high: Number, key: str, first: Number, step: Number, led: Number | None = None, **more: Any
) -> Number:
    """`st.slider`; goes where it is `led`, if anywhere."""
    shown = _default(key, first, _between(low, high), led=led)
    return _written(key, st.slider(label, low, high, shown, step, key=key, persist_state="session", **more))


def range_slider(label: str, low: int, high: int, key: str, **more: Any) -> tuple[int, int]:
    """`st.slider` with two ends."""

    pairs = {f"{a}-{b}": (a, b) for a in range(low, high + 1) for b in range(a, high + 1)}
    shown = _default(key, (low, high), pairs.get, "{0[0]}-{0[1]}".format)
    value = st.slider(label, low, high, shown or (low, high), key=key, persist_state="session", **more)
    link.write({key: f"{value[0]}-{value[1]}"})
    return value


def pagination(pages: int, key: str, **more: Any) -> int:
    """`st.pagination`."""
    shown = _default(key, 1, _between(1, pages))
    return _written(key, st.pagination(pages, default=shown or 1, key=key, persist_state="session", **more))


def toggle(label: str, key: str, first: bool, **more: Any) -> bool:
    """`st.toggle`."""
    shown = _default(key, first, _among([True, False]))
    return _written(key, st.toggle(label, bool(shown), key=key, persist_state="session", **more))


def text_input(label: str, key: str, first: str = "", **more: Any) -> str:
    """`st.text_input`."""
    value = st.text_input(label, _default(key, first, str) or "", key=key, persist_state="session", **more)
    link.write({key: value or None})
    return value


def kept(key: str, first: T, options: Sequence[T]) -> T:
    """What such a widget of another page shows, where this page goes by it, too."""
    value = st.session_state[key] = _wanted(key, first, _among(options), str)
    return _written(key, value)


def _default(
    key: str, first: T, read: Callable[[str], T | None], text: Callable[[T], str] = str, led: T | None = None
) -> T | None:
    """What the widget takes as its default: the link's wish, where it is led, what it shows already, or `first`."""
    return link.default(key, _wanted(key, first, read, text) if led is None else led)


def _wanted(key: str, first: T, read: Callable[[str], T | None], text: Callable[[T], str]) -> T:
    asked = _asked(key, read)
    if asked is None and key in st.session_state:
        asked = read(text(st.session_state[key]))  # which may be possible no longer
    return first if asked is None else asked


def _asked(key: str, read: Callable[[str], T | None]) -> T | None:
    """What the link asks for; the reader is told when that is impossible."""
    said = link.asked(key)
    value = None if said is None else read(said)
    if said is not None and value is None:
        link.complain(f"The link asks for {key} “{said}”, which is not possible here: it stays as it was.")
    return value


def _written(key: str, value: T) -> T:
    link.write({key: value})
    return value


def _among(options: Sequence[T]) -> Callable[[str], T | None]:
    return {str(option): option for option in options}.get


def _between(low: Number, high: Number) -> Callable[[str], Number | None]:
    def read(text: str) -> Number | None:
        try:
            value = type(low)(text)
        except ValueError:
            return None
        return value if low <= value <= high else None

    return read
