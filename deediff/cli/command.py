"""The base class of all commands, and the types of their arguments.

A command is a dataclass: its fields are the arguments, their docstrings the help, and `run` returns the result.
To add one: the class, in the module of its theme, and a line in `entry.COMMANDS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from deediff.photos.options import Background, PhotoOptions

T = TypeVar("T")
Result = dict[str, Any]  # printed as text, or as JSON with --json
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]  # off unless given


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """A command with a result."""

    json: Flag = False
    """Print the result as JSON."""

    @abstractmethod
    def run(self) -> Result | str:
        """Do the work. A string is printed as it is, with and without --json."""


@dataclass(frozen=True, kw_only=True)
class PhotoCommand(Command):
    """A command that may read folders of images."""

    background: Background = "white"
    """Folders of images: colour behind transparent parts."""
    skip_bad: Flag = False
    """Folders of images: pass unreadable files over."""

    @property
    def photos(self) -> PhotoOptions:
        """How folders of images are read."""
        return PhotoOptions(self.background, self.skip_bad)


def from_text(metavar: str, read: Callable[[str], T], write: Callable[[T], str] = str) -> PrimitiveConstructorSpec[T]:
    """A type that is read from one word; `read` raises ValueError for a bad one."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: read(words[0]),
        is_instance=lambda _: True,
        str_from_instance=lambda value: [write(value)],
    )


def one_of(choices: Sequence[str]) -> PrimitiveConstructorSpec[str]:
    """A string out of several choices."""
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(choices) + "}",
        instance_from_str=lambda words: words[0],
        is_instance=lambda _: True,
        str_from_instance=lambda value: [str(value)],
        choices=tuple(choices),
    )


def defaults_to(text: str, metavar: str | None = None) -> Any:
    """The default in words for the help, and the name of the value."""
    return tyro.conf.arg(help_behavior_hint=f"(default: {text})", metavar=metavar)


def _some(words: list[str]) -> tuple[str, ...]:
    if not words:
        raise ValueError("give at least one trace")
    return tuple(words)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


Count = Annotated[int, from_text("INT", _count)]  # 1 or more
Traces = Annotated[
    tuple[str, ...],  # one or more
    tyro.conf.Positional,
    PrimitiveConstructorSpec("*", "TRACE [TRACE ...]", _some, lambda _: True, list),
    tyro.conf.arg(metavar="TRACE [TRACE ...]", help_behavior_hint="(required)"),
]
