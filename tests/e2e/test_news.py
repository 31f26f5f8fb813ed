"""What appears in the folder of runs appears on the page, without a reload."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deediff.bench.browser import wait_until_drawn
from tests.e2e.conftest import SHOTS

pytestmark = pytest.mark.e2e


def test_a_new_trace_appears_by_itself_and_nothing_else_moves(tab: Page, served: str, copied: Path) -> None:
    tab.goto(f"{served}/trends?run=mnist_tiny&tau=0.09")
    expect(tab.locator(".st-key-plot-exit-heatmap .js-plotly-plot[data-drawn]")).to_be_visible(timeout=60_000)
    wait_until_drawn(tab)
    address, entries = tab.url, tab.evaluate("history.length")
    tab.evaluate("window.same = true")
    traces = copied / "mnist_tiny" / "traces"
    shutil.copytree(traces / "ddim50-threshold-0.1", copied / "hidden")  # first without a trace.json, as nothing is yet
    shutil.move(copied / "hidden", traces / "brand-new")
    button = tab.locator(".st-key-news button").filter(has_text="brand-new")
    expect(button).to_be_visible(timeout=30_000)
    wait_until_drawn(tab)
    assert (tab.url, tab.evaluate("history.length"), tab.evaluate("window.same")) == (address, entries, True)
    tab.screenshot(path=SHOTS / "news.png")
    button.click()
    tab.wait_for_function("new URL(location).searchParams.get('trace') === 'brand-new'")
    expect(tab.locator(".st-key-news")).to_have_count(0)
    assert "tau=" in tab.url
    shutil.rmtree(traces / "brand-new")
