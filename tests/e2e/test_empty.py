"""The button of an empty page works in the queue, shows progress and can be cancelled; the result appears by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import wait_until_drawn
from tests.conftest import REPO
from tests.e2e.conftest import SHOTS

pytestmark = pytest.mark.e2e


def test_the_button_of_an_empty_page_samples_its_first_trace(tab: Page, served: str, copied: Path) -> None:
    bare = copied / "bare"
    shutil.copytree(REPO / "runs" / "mnist_tiny-shallow", bare)  # three blocks: fast
    tab.goto(f"{served}/trends?run=bare")
    button = tab.get_by_role("button", name="Sample 64 images")
    expect(button).to_be_visible(timeout=60_000)
    tab.evaluate("window.same = true")
    tab.screenshot(path=SHOTS / "empty.png")
    button.click()
    cancel = tab.get_by_role("button", name="Cancel")
    expect(cancel).to_be_visible(timeout=30_000)
    tab.screenshot(path=SHOTS / "empty-busy.png")
    cancel.click()
    expect(button).to_be_visible(timeout=30_000)
    assert not (bare / "traces" / "ddim50-never").exists()
    wait_until_drawn(tab)
    button.click()
    expect(tab.locator(".st-key-plot-exit-heatmap .js-plotly-plot[data-drawn]")).to_be_visible(timeout=120_000)
    assert "trace=ddim50-never" in tab.url
    assert tab.evaluate("window.same")
    trace = deediff.read_trace(bare / "traces" / "ddim50-never")
    assert (trace.meta.num_samples, trace.meta.complete) == (64, True)
    shutil.rmtree(bare)
