"""The `deediff` command: one module per theme, each command a function under its arguments."""

from deediff.cli.entry import main

__all__ = ["main"]
