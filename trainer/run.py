"""Train a preset: `python -m trainer.run PRESET [--key value …]`; start it again to resume."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import tyro

from deediff.cli.show import as_text
from deediff.errors import UserError
from trainer.features import FeaturesConfig, train_features
from trainer.loop import Training
from trainer.presets import PRESETS, Precision
from trainer.suites.claims import as_markdown, verdicts
from trainer.suites.suite import Suite, overview
from trainer.suites.tables import ABOUT

FEATURES = "The classifier behind fd-cifar: ResNet-20; with --dataset mnist behind fd-mnist"


def main(args: list[str] | None = None) -> int:
    """Returns the exit code: 0, or 2 for bad input (one sentence on stderr)."""
    args = sys.argv[1:] if args is None else args
    if args and args[0] == "claims":
        return _reporting(lambda: _claims(args[1:]))
    if args and args[0].startswith("suite:"):
        return _reporting(lambda: _suite(args[0].removeprefix("suite:"), args[1:]))
    described = {name: description for name, (description, _) in PRESETS.items()} | {"features": FEATURES}
    if not args or args[0] not in described:
        lines = [f"  {name:12} {description}" for name, description in described.items()]
        text = "usage: python -m trainer.run PRESET [--key value …]   (PRESET --help explains every field)\n\n"
        text += "presets:\n" + "\n".join(lines)
        text += "\n\nsuites, from training to a table beside what was published (--help):\n"
        text += "\n".join(f"  suite:{name:12} {about}" for name, about in ABOUT.items())
        text += "\n\nwhat was claimed, held against the suites' results:\n  claims [--out FOLDER]"
        if args and args[0] in ("-h", "--help"):
            print(text)
            return 0
        if args:
            text = f"error: unknown preset {args[0]!r}\n{text}"
        print(text, file=sys.stderr)
        return 2
    return _reporting(lambda: _preset(args[0], args[1:]))


def _preset(name: str, args: list[str]) -> None:
    if name == "features":
        features = tyro.cli(FeaturesConfig, args=args, prog="trainer.run features", description=FEATURES)
        print(f"trained: {train_features(features)}")
        return
    description, default = PRESETS[name]
    config = tyro.cli(type(default), default=default, args=args, prog=f"trainer.run {name}", description=description)
    print(f"trained: {Training(name, config).run()}")


def _suite(name: str, args: list[str]) -> None:
    def suite(
        scale: Literal["cpu", "paper", "toy"] = "cpu",
        out: Path = Path("runs"),
        data_root: Path | None = None,
        device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
        precision: Precision = "auto",
        rows: tuple[str, ...] = (),
    ) -> None:
        """Train, sample and evaluate everything a table needs; start it again to go on.

        Args:
            scale: cpu: the shipped digits, DDIM-50, fd-mnist; paper: U-ViT-S/2 on CIFAR-10, DDPM-1000, FID; toy: tests.
            out: Where the runs and the results file go.
            data_root: Folder with the data set in torchvision's layout; default: a cache folder, filled by download.
            device: auto takes CUDA (in bf16), else MPS, else the CPU.
            precision: Of what is still to be trained; auto: bfloat16 on CUDA, float32 elsewhere.
            rows: Only those of these names, or whose names contain one of these; the others stay in the results file.
        """
        results = Suite(name, scale, out, data_root, device, precision).run(rows)
        print(as_text({"results": str(results), "rows": overview(results)}))

    tyro.cli(suite, args=args, prog=f"trainer.run suite:{name}")


def _claims(args: list[str]) -> None:
    def claims(out: Path = Path("runs")) -> None:
        """What others claimed, whether it holds, and by which numbers: a table in Markdown.

        Args:
            out: Where the suites' results files are.
        """
        print(as_markdown(verdicts(out)))

    tyro.cli(claims, args=args, prog="trainer.run claims")


def _reporting(work: Callable[[], None]) -> int:
    """Exit code 0, or a sentence on stderr and 2."""
    try:
        work()
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
