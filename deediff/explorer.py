"""The explorer from Python: its server as a child process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from deediff.errors import UserError

# Beside deediff, installed or not. Streamlit reads its options from `.streamlit` in the same folder.
MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
START = 120.0  # seconds for the server to answer


def server_command(runs: str | Path | None, port: int | None, headless: bool) -> tuple[list[str], dict[str, str]]:
    """The command line of the server and its environment. Raises UserError for a bad folder or port."""
    folder = Path(runs or os.environ.get("DEEDIFF_RUNS") or "runs")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give a folder of runs, for example deediff explore path/to/runs")
    if not MAIN.exists():
        raise UserError(f"{MAIN} does not exist: the explorer is not installed beside deediff; install the wheel again")
    if port is not None and not 1 <= port <= 65535:
        raise UserError(f"port is {port}, expected 1 … 65535")
    flags = [f"--server.port={port}"] if port is not None else []
    flags += ["--server.headless=true"] if headless else []
    command = [sys.executable, "-m", "streamlit", "run", str(MAIN), *flags]
    return command, {**os.environ, "DEEDIFF_RUNS": str(folder.resolve())}


class Explorer:
    """A running explorer. In a notebook it shows itself; `close` ends it, as does the end of this process."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, height: int):
        self.url, self.height, self._process = url, height, process

    def _repr_html_(self) -> str:
        return f'<iframe src="{self.url}" width="100%" height="{self.height}" style="border: 0"></iframe>'

    def __enter__(self) -> Explorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()


def explore(runs: str | Path | None = None, port: int | None = None, height: int = 900) -> Explorer:
    """Start the explorer on a folder of runs (default: $DEEDIFF_RUNS, else runs), for notebooks.

    `height` of the frame is in pixels. Raises UserError when the folder does not exist or the server does not answer.
    """
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    command, environment = server_command(runs, port, headless=True)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    explorer, end = Explorer(process, f"http://localhost:{port}", height), time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{explorer.url}/_stcore/health", timeout=1):
                return explorer
        except OSError:  # it does not listen yet
            time.sleep(0.1)
    explorer.close()
    raise UserError(f"the explorer does not start at port {port}: try 'deediff explore' in a terminal to see why")
