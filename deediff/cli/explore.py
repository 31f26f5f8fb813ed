"""`deediff explore` and `report`: the explorer on a folder of runs, and its pages as a file."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, Suppress, arg

from deediff.cli.command import Command, Flag, Result, defaults_to
from deediff.errors import UserError
from deediff.explorer import MAIN, server_command

PAGES = ("overview", "trends", "uncertainty", "images", "compare", "plans", "method")


@dataclass(frozen=True, kw_only=True)
class Explore(Command):
    """Open the explorer on a folder of runs, in the browser."""

    runs: Annotated[Positional[Path | None], defaults_to("$DEEDIFF_RUNS, else runs")] = None
    """The folder of runs."""
    port: Annotated[int | None, defaults_to("8501, or the next that is free")] = None
    """Port of the server."""
    headless: Flag = False
    """Do not open a browser window."""
    json: Suppress[bool] = False  # there is no result

    def run(self) -> Result:
        """Start the server in place of this process, so that signals and the exit code are the server's."""
        command, environment = server_command(self.runs, self.port, self.headless)
        sys.stdout.flush()
        os.execve(command[0], command, environment)


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Write pages of the explorer for one run as a single HTML file that needs no network."""

    folder: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run folder."""
    out: Path
    """The HTML file."""
    pages: Annotated[tuple[str, ...], defaults_to("all", f"{{{','.join(PAGES)}}} [...]")] = PAGES
    """Pages, in this order."""

    def run(self) -> Result:
        """Draw the pages in a process of their own, since the library itself draws nothing."""
        if not self.folder.is_dir():
            raise UserError(f"{self.folder} is not a run folder")
        if unknown := [page for page in self.pages if page not in PAGES]:
            raise UserError(f"unknown page {unknown[0]!r}, expected some of: {', '.join(PAGES)}")
        if not MAIN.exists():
            raise UserError(f"{MAIN} does not exist: the explorer is not installed beside deediff")
        run, out = self.folder.resolve(), self.out.resolve()
        if not out.parent.is_dir():
            raise UserError(f"{out.parent} is not a folder: choose another --out")
        command = [sys.executable, "-m", "app.export", str(run.parent), run.name, str(out), *self.pages]
        paths = os.pathsep.join(filter(None, [str(MAIN.parents[1]), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
        if done.returncode:
            reason = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "no reason given")
            raise UserError(f"the report of {run} could not be written ({reason})")
        return {"report": str(self.out), "megabytes": round(out.stat().st_size / 1e6, 1)}
