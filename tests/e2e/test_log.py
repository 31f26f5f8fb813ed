"""What readers and damaged files do every day leaves no stack in the server's log."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deediff.bench.app import explorer
from deediff.bench.browser import PATIENCE
from tests.conftest import REPO
from tests.e2e.conftest import TRACES
from tests.e2e.test_headings import FIRST, PAGES

pytestmark = pytest.mark.e2e


def damaged_folder(root: Path) -> Path:
    """A run with one damaged file of each kind, a run without weights, a run of an unreadable description."""
    run, source = root / "worn", REPO / "runs" / "mnist_tiny"
    for trace in TRACES:
        shutil.copytree(source / "traces" / trace, run / "traces" / trace)
    for name in ("run.json", "metrics.parquet"):
        shutil.copy(source / name, run / name)
    (run / "front.json").write_text('{"metric": 3}')
    (run / "plans").mkdir()
    (run / "plans" / "odd.json").write_text("[]")
    first, second, third, _ = (run / "traces" / trace for trace in TRACES)
    for part in sorted(first.glob("part-*.parquet")):
        part.write_bytes(part.read_bytes()[:1000])
    (second / "summary.npz").write_bytes(b"PK")
    (third / "quality.json").write_text("{")
    (root / "bare").mkdir()
    (root / "bare" / "run.json").write_text('{"format_version": 1, "status": "done"}')
    (root / "broken").mkdir()
    (root / "broken" / "run.json").write_text("nothing")
    return root


def visit(tab: Page, address: str) -> None:
    """Open a page and wait until its script has run once."""
    tab.goto(address, wait_until="commit")
    expect(tab.locator("h1")).to_be_visible(timeout=PATIENCE)
    tab.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=PATIENCE)


def test_no_stack_is_in_the_log(tab: Page, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with explorer(damaged_folder(tmp_path / "runs"), log) as (_, address, _):
        for name in PAGES:
            for query in (f"?run=worn&trace={TRACES[0]}&b={TRACES[1]}", f"?run=worn&trace={TRACES[2]}", "?run=bare"):
                visit(tab, f"{address}/{'' if name == FIRST else name}{query}")
            tab.goto(
                f"{address}/{name}?run=%00../..&trace=<x>&t=nan&tau=inf&layer=-1&sample=1e999", wait_until="commit"
            )
            tab.wait_for_timeout(300)  # left while it is drawn
        tab.goto(f"{address}/pdf/none.js")
        tab.goto(f"{address}/no-such-page", wait_until="commit")
        expect(tab.locator("h1")).to_be_visible(timeout=PATIENCE)
    text = log.read_text()
    assert [line for line in text.splitlines() if line.startswith(("Traceback", "  File ")) or "ERROR" in line] == []
