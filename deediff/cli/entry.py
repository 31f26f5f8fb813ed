"""From a command line to an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys

from deediff import __version__
from deediff.cli import bench, checkpoints, compare, quality, sampling, traces
from deediff.cli.command import Command
from deediff.cli.show import as_text
from deediff.errors import UserError

MODULES = (sampling, quality, compare, traces, checkpoints, bench)  # their commands, in the order of the help
GROUPS = {"bench": "what exits are worth in seconds, and what a trace costs"}


def build_parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    parser = argparse.ArgumentParser(
        prog="deediff", description="Early exit for diffusion models: sample, import, look."
    )
    parser.add_argument("--version", action="version", version=f"deediff {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    groups = {"": commands}
    for module in MODULES:
        for entry in vars(module).values():
            if isinstance(entry, Command):
                group = "".join(entry.name.split()[:-1])
                if group not in groups:
                    inner = commands.add_parser(group, help=GROUPS[group], description=GROUPS[group])
                    groups[group] = inner.add_subparsers(required=True, metavar="WHAT")
                entry.add_to(groups[group])
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 for bad input (one sentence on stderr)."""
    args = build_parser().parse_args(argv)
    try:
        result = args.function(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if os.environ.get("DEEDIFF_DEBUG"):
            raise
        print(
            f"error: {error}: what was complete is kept; make that place readable and writable, then run this again",
            file=sys.stderr,
        )
        return 2
    except Exception as error:  # the last resort: a sentence, and the traceback for those who ask
        if os.environ.get("DEEDIFF_DEBUG"):
            raise
        reason = " ".join(str(error).split())
        print(
            f"error: {type(error).__name__} ({reason}): a damaged file, or a bug; DEEDIFF_DEBUG=1 shows where",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("stopped: what was complete is kept; run the same command again to go on", file=sys.stderr)
        return 130
    print(result if isinstance(result, str) else json.dumps(result) if args.json else as_text(result))
    return 0
