"""Train a preset: `python -m trainer.run PRESET [--key value …]`; start it again to resume."""

from __future__ import annotations

import os
import sys

import tyro

from deediff.errors import UserError
from trainer.loop import Training
from trainer.presets import PRESETS


def main(args: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 for bad input (one sentence on stderr)."""
    args = sys.argv[1:] if args is None else args
    if not args or args[0] not in PRESETS:
        lines = [f"  {name:12} {description}" for name, (description, _) in PRESETS.items()]
        text = "usage: python -m trainer.run PRESET [--key value …]   (PRESET --help explains every field)\n\n"
        text += "presets:\n" + "\n".join(lines)
        if args and args[0] in ("-h", "--help"):
            print(text)
            return 0
        if args:
            text = f"error: unknown preset {args[0]!r}\n{text}"
        print(text, file=sys.stderr)
        return 2
    description, default = PRESETS[args[0]]
    try:
        config = tyro.cli(
            type(default), default=default, args=args[1:], prog=f"trainer.run {args[0]}", description=description
        )
        print(f"trained: {Training(args[0], config).run()}")
    except SystemExit as stop:  # the command line's own help or complaint, already printed
        return int(stop.code or 0)
    except OSError as error:
        print(f"error: {error}: what was saved is kept; make room or choose another --out", file=sys.stderr)
        return 2
    except (UserError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception as error:  # the last resort: a sentence, and the traceback for those who ask
        if os.environ.get("DEEDIFF_DEBUG"):
            raise
        reason = " ".join(str(error).split())[:300]
        print(f"error: {type(error).__name__} ({reason}): DEEDIFF_DEBUG=1 shows where", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: start the same command again to resume", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
