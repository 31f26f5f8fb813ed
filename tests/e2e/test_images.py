"""*Images* and *Sample* as people use them: sort, open one, look at its film, go on with the arrow keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import PATIENCE, settle
from deediff.quality.pairs import find_full, image_distances
from tests.e2e.conftest import SHOTS, click_point

TRACE = "ddim50-threshold-0.11"

pytestmark = pytest.mark.e2e


def film_of(page: Page, number: int) -> None:
    """Wait for a sample's page, its film included."""
    expect(page.get_by_text(f"Sample {number} of {TRACE}")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(f"sample {number}, recomputed from seed 0")).to_be_visible(timeout=3 * PATIENCE)
    settle(page)


def test_from_the_most_changed_image_to_its_film_and_on_by_keys(tab: Page, served: str, copied: Path) -> None:
    trace = deediff.read_trace(copied / "mnist_tiny" / "traces" / TRACE)
    full = find_full(trace)
    assert full is not None
    table = image_distances(trace, full).set_index("sample").sort_values("change", ascending=False, kind="stable")
    first, second = (int(number) for number in table.index[:2])
    layers = trace.exit_layers()

    tab.goto(f"{served}/images?run=mnist_tiny&trace={TRACE}")
    expect(tab.locator(".clickable figure")).to_have_count(50, timeout=PATIENCE)
    settle(tab)
    tab.locator(".st-key-order").click()
    tab.get_by_role("option", name="Change").click()
    caption = f"{first} · {table['change'].iloc[0]:.1f}"
    expect(tab.locator("figcaption").first).to_have_text(caption, timeout=PATIENCE)
    settle(tab)
    assert tab.locator("figcaption").all_inner_texts() == [
        f"{k} · {c:.1f}" for k, c in table["change"].iloc[:50].items()
    ]
    tab.locator("figure").first.hover()
    expect(tab.locator(".tip")).to_contain_text(f"sample {first}, mean exit layer {layers[first].mean():.3f}")
    tab.screenshot(path=SHOTS / "images-changed.png")

    tab.locator("figure").first.click()
    film_of(tab, first)
    assert f"sample={first}" in tab.url
    assert f"trace={TRACE}" in tab.url
    expect(tab.get_by_text("exits equal at 50 of 50 steps")).to_be_visible()
    off = tab.get_by_text(re.compile(r"final image within \d+ grey level")).inner_text()
    assert int(re.findall(r"within (\d+) grey", off)[0]) <= 2
    frames = tab.locator(".st-key-film-1 figcaption").all_inner_texts()
    steps = [int(n) for n in tab.locator(".st-key-film-1 figure").evaluate_all("all => all.map(f => f.dataset.number)")]
    assert frames == [f"exit {layers[first, step]}" for step in steps]
    tab.screenshot(path=SHOTS / "sample.png")

    # Clicking a cell chooses timestep and layer everywhere; so does a frame of the film.
    t = trace.timesteps[10]
    click_point(tab, ".st-key-plot-sample-path", t, 3)
    expect(tab).to_have_url(re.compile(f"t={t}.*layer=3"), timeout=PATIENCE)
    settle(tab)
    expect(tab.locator(".st-key-film-0 figure.chosen figcaption")).to_have_text(f"t = {t}")
    tab.locator(".st-key-film-1 figure").last.click()
    expect(tab).to_have_url(re.compile(f"t={trace.timesteps[-1]}(&|$)"), timeout=PATIENCE)
    settle(tab)

    tab.keyboard.press("ArrowRight")
    film_of(tab, second)
    tab.keyboard.press("ArrowLeft")
    film_of(tab, first)
    tab.get_by_role("link", name="All images").click()
    tab.wait_for_url("**/images?*", timeout=PATIENCE)
    settle(tab)
    expect(tab.locator("figure.chosen figcaption")).to_have_text(caption, timeout=PATIENCE)
