"""Command-line arguments to a typed object: `tyro.cli`, its error box reduced to one sentence."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any, TypeVar

import tyro

from deediff.errors import UserError

T = TypeVar("T")
MARKERS = (tyro.conf.DisallowNone, tyro.conf.PositionalMetavarFromFieldName)
SUGGESTIONS = ("Perhaps you meant", "Arguments similar to")  # headings in tyro's error box
WORDING = [  # patterns in the messages of tyro and Python, and their replacements
    (r"^Error parsing (--\S+: )?(\S+: )?", r"\1"),
    (r"^invalid choice (.*) for argument '(.*)'\. Expected one of \((.*?),?\)", r"\2: invalid choice \1, expected \3"),
    (r"^Missing value for argument '(.*)'\. Expected 1 values", r"missing value of \1"),
    (r"^Unrecognized options: ", "unrecognized arguments: "),
    (r"no type matching (.*) could be instantiated from (\[.*\])", r"\2 does not fit \1"),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
]


def parse_arguments(
    kind: type[T],  # a dataclass
    arguments: Sequence[str],
    prog: str,  # how the command is called, for usage and errors
    description: str | None = None,  # default: the class's docstring
    default: T | None = None,  # an instance with the defaults
) -> T:
    """An instance of `kind` from command-line arguments. Raises UserError when they do not fit it.

    `--help` prints the fields with their docstrings, and raises SystemExit.
    """
    box, options = io.StringIO(), dict[str, Any]() if default is None else {"default": default}
    try:
        with redirect_stderr(box):
            return tyro.cli(kind, args=arguments, prog=prog, description=description, config=MARKERS, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(f"{as_sentence(box.getvalue())}; see {prog} --help") from None


def as_sentence(box: str) -> str:
    """The message in one of tyro's error boxes, without frame, the argument's help and usage."""
    sections: list[list[str]] = [[]]
    for line in box.splitlines()[1:]:  # the first has the title
        text = re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip(" │").removeprefix("│")
        if re.fullmatch(r"[ ╰─╯-]*", text):
            sections.append([])
        else:
            sections[-1].append(text)
    message, *others = [section for section in sections if section]
    if message[0].strip().startswith("Missing from"):
        names = [line.strip() for line in message[1:] if re.match(r" {5,6}\S", line)]
        return f"missing: {', '.join(names)}"
    sentence = " ".join(" ".join(message).split()).removesuffix(".").strip()
    for pattern, replacement in WORDING:
        sentence = re.sub(pattern, replacement, sentence)
    hints = [line.strip() for section in others if section[0].strip().startswith(SUGGESTIONS) for line in section]
    similar = [hint.split()[0] for hint in hints if hint.startswith("--")]
    return sentence + (f" (did you mean {' or '.join(similar)}?)" if similar else "")
