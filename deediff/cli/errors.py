"""From a function to an exit code: the one place where errors become a sentence on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from deediff.errors import UserError

KEPT = "completed work is kept"


def run_command(function: Callable[[], object]) -> int:
    """Call `function`. Returns the exit code: 0, 2 for an error (one sentence on stderr), 130 for Ctrl-C.

    Errors that are not the user's keep their traceback where the environment has DEEDIFF_DEBUG=1.
    """
    debug = bool(os.environ.get("DEEDIFF_DEBUG"))
    try:
        function()
    except SystemExit as stop:  # --help has been printed
        return int(stop.code or 0)
    except UserError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of stdout has closed it, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 — for the interpreter's last flush
        return 0
    except OSError as error:
        if debug:
            raise
        reason = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
        return _fail(f"{reason}: {KEPT}; check the path, permissions and free space, then run this again")
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())[:300]
        if _is_out_of_memory(error):
            return _fail(f"out of memory ({reason}): {KEPT}; smaller batches need less")
        return _fail(f"{type(error).__name__} ({reason}): a damaged file or a bug; DEEDIFF_DEBUG=1 shows where")
    except KeyboardInterrupt:
        print(f"stopped: {KEPT}; run the same command again to resume", file=sys.stderr)
        return 130
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """Of Python, NumPy, CUDA, or torch's CPU allocator, which raises a plain RuntimeError; without importing torch."""
    named = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return named or isinstance(error, MemoryError)


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2
