"""`python -m trainer.run PRESET | features | suite:NAME | claims`. Start a command again to resume it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deediff.cli.errors import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line. Returns the exit code: 0, 2 for an error (one sentence on stderr), 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def run() -> None:
        from trainer.entry import run_words  # slow to import, and Ctrl-C may interrupt it

        run_words(words)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
