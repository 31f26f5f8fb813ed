"""The `deediff` command: one module per theme, each command a dataclass with its arguments as fields."""

from deediff.cli.entry import main

__all__ = ["main"]
