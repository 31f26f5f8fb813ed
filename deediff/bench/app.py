"""`deediff bench app`: speed and memory of the explorer, in a real browser against the real server.

Measured on a run of this machine and on a synthetic trace of 50 000 × 1 000 × 13. The explorer is not imported: the
server is started as a user starts it, and measured from outside.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deediff.bench.browser import first_page, open_browser, wait_until_drawn
from deediff.bench.measures import (
    LIMITS,
    measure_contexts,
    measure_film,
    measure_lens,
    measure_live,
    measure_slider,
    measure_switches,
    row,
)
from deediff.bench.synthetic import write_synthetic
from deediff.checkpoints import find_checkpoint, load_checkpoint
from deediff.cost.components import model_cost
from deediff.devices import device_name
from deediff.errors import UserError
from deediff.runs import read_run
from deediff.traces.reader import read_trace

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]  # of the checkout: the explorer is no part of the package
MAIN = ROOT / "app" / "main.py"
SYNTHETIC = "synthetic"  # name of the synthetic run and of its trace
PARTS = ("first", "slider", "switch", "live", "film", "lens", "contexts")  # that can be measured alone
START = 60.0  # seconds until the server has to answer


def bench_app(
    run: Path,  # with a checkpoint and a trace recorded in full
    folder: Path,  # empty; becomes the parent of the explorer's runs folder
    repeats: int = 5,
    samples: int = 50_000,
    steps: int = 1000,
    only: Sequence[str] = PARTS,
    people: int = 10,  # browser contexts that move their sliders at once
) -> dict[str, Any]:
    """Medians of `repeats`, beside their limits.

    - redraw: from the release of the what-if slider until the heatmap is painted, in the browser's clock
    - server: CPU time of the script run that computes and describes the whole page, Streamlit included
    - switch: from the click on a page's link until everything on the page is painted
    - first page: from the request to a server that has just started, until the page is painted
    - live: from a click on *Sample* on *Sample live* until the first images are painted, and from the release of the
      slider until the images of the last step are, for 4 images × DDIM-20
    - film: from the click on a sample on *Images* until its films on *Sample* are painted
    - lens: from the click on *Next* until the diffusion lens of that sample is painted
    - contexts: the redraw in one browser context, in `people` of them at once, and the ratio of these medians
    - memory: of the server after all of these but the last, above a process that has only loaded the model

    `only` selects some of the measures; memory is always one. Raises UserError when a prerequisite is missing, and when
    the explorer shows an error or does not answer.
    """
    if not MAIN.exists():
        raise UserError(f"{MAIN} does not exist: the explorer is measured from a checkout of the repository")
    shipped, with_exits = _full_trace(run), _trace_with_exits(run, repeats)
    checkpoint = find_checkpoint(run)
    model, _ = load_checkpoint(checkpoint)
    root = folder / "runs"
    (root / SYNTHETIC).mkdir(parents=True)
    (root / run.name).symlink_to(run.resolve())
    shutil.copy(run / "run.json", root / SYNTHETIC / "run.json")
    (root / SYNTHETIC / "checkpoints").symlink_to((run / "checkpoints").resolve())
    write_synthetic(root / SYNTHETIC / "traces" / SYNTHETIC, model_cost(model), model.image_shape, samples, steps)
    traces = [(run.name, shipped), (SYNTHETIC, SYNTHETIC)]
    rows: list[dict[str, Any]] = []
    with open_browser() as page:
        if "first" in only:
            rows += _first_pages(page, root, folder / "log.txt", f"?run={run.name}&trace={shipped}", run.name, repeats)
        with explorer(root, folder / "log.txt") as (process, address, _):
            for name, trace in traces:
                page.goto(f"{address}/trends?run={name}&trace={trace}", wait_until="commit")
                wait_until_drawn(page)
                if "slider" in only:
                    rows += measure_slider(page, f"{name}/{trace}", repeats)
                if "switch" in only:
                    rows += measure_switches(page, f"{name}/{trace}", repeats)
            example = f"run={run.name}&trace={with_exits}"
            if "live" in only:
                rows += measure_live(page, f"{address}/live?run={run.name}&live+policy=threshold", run.name, repeats)
            if "film" in only:
                page.goto(f"{address}/images?{example}", wait_until="commit")
                rows += measure_film(page, f"{run.name}/{with_exits}", repeats)
            if "lens" in only:
                opened = f"{address}/sample?{example}&sample=0&sample_view=lens"
                rows += measure_lens(page, opened, f"{run.name}/{with_exits}", repeats)
            used, alone = _megabytes(process.pid), _megabytes_with_model(checkpoint)
            if "contexts" in only:
                opened = f"{address}/trends?run={run.name}&trace={shipped}"
                rows += measure_contexts(page, opened, f"{run.name}/{shipped}", repeats, people)
        rows.append(row("memory above the loaded model", "both traces open", [used - alone], "MB", LIMITS["memory"]))
    return {
        "device": device_name(next(model.parameters()).device),
        "synthetic": f"{samples} samples × {steps} steps × {model.num_blocks} blocks",
        "server_mb": used,
        "model_mb": alone,
        "rows": rows,
    }


def _full_trace(run: Path) -> str:
    """Name of the run's first trace with a what-if for every threshold."""
    for folder in read_run(run).traces:
        limit = read_trace(folder).what_if_limit
        if limit is not None and limit[0] == 0:
            return folder.name
    raise UserError(f"{run} holds no trace recorded in full: sample one with --policy never --record full")


def _trace_with_exits(run: Path, repeats: int) -> str:
    """Name of the run's first trace with early exits, else of its first one, with images of more than `repeats`."""
    traces = [read_trace(folder) for folder in read_run(run).traces]
    found = [trace for trace in traces if trace.image_parts and trace.meta.num_samples > repeats]
    if not found:
        raise UserError(
            f"{run} holds no trace with images of more than {repeats} samples: sample one with deediff sample"
        )
    return min(found, key=lambda trace: trace.meta.is_full).path.name


def _first_pages(page: Page, root: Path, log: Path, query: str, of: str, repeats: int) -> list[dict[str, Any]]:
    """Start new servers: time until each answers, and until its first page is painted."""
    starts, firsts = [], []
    for _ in range(repeats):
        page.goto("about:blank")
        with explorer(root, log) as (_, address, seconds):
            starts.append(1000 * seconds)
            firsts.append(first_page(page, f"{address}/{query}"))
    return [
        row("start of the server", "", starts, "ms", None),
        row("first page", of, firsts, "ms", LIMITS["first page"]),
    ]


@contextmanager
def explorer(root: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, float]]:
    """Run the explorer on a free port: yields process, address, and the seconds until it answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(MAIN), "--server.headless=true", f"--server.port={port}"]
    begin = time.perf_counter()
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "DEEDIFF_RUNS": str(root), "DEEDIFF_BENCH": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while not _answers(f"http://localhost:{port}/_stcore/health"):
            if process.poll() is not None or time.perf_counter() - begin > START:
                raise UserError(f"the explorer does not start: {_last_line(log)}")
            time.sleep(0.02)
        yield process, f"http://localhost:{port}", time.perf_counter() - begin
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "its log is empty")


def _megabytes(pid: int) -> float:
    """Resident memory of a process. Raises UserError if `ps` is missing."""
    try:
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) / 1024
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise UserError(f"ps cannot read the memory of process {pid} ({error}): install procps") from None


def _megabytes_with_model(checkpoint: Path) -> float:
    """Resident memory of a process that only loads the model."""
    code = "import sys, deediff; model = deediff.load(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(checkpoint)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        used = _megabytes(process.pid)
        process.communicate(b"")
    return used
