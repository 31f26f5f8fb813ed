"""The `deediff` command: one module per theme, each command a dataclass with its arguments as fields."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deediff.cli.errors import run_command

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line. Returns the exit code: 0, 2 for an error (one sentence on stderr), 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def run() -> None:
        from deediff.cli.entry import dispatch  # slow to import, and Ctrl-C may interrupt it

        dispatch(words)

    return run_command(run)
