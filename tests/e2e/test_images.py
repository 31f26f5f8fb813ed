"""*Images* and *Sample* in a browser: sort, open a sample, see its denoising, step with the arrow keys."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

import deediff
from deediff.bench.browser import PATIENCE, wait_until_drawn
from deediff.quality.pairs import find_full, image_distances
from deediff.traces.cohort import samples_to_text
from tests.e2e.conftest import SHOTS, click_point, exported, meta_of, place, recorded, reopened

TRACE, MILDER = "ddim50-threshold-0.11", "ddim50-threshold-0.1"

pytestmark = pytest.mark.e2e


def film_of(page: Page, number: int) -> None:
    """Wait for a sample's page and its recomputation."""
    expect(page.get_by_text(f"Sample {number} of {TRACE}")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(f"sample {number}, recomputed from seed 0")).to_be_visible(timeout=3 * PATIENCE)
    wait_until_drawn(page)


def test_from_the_most_changed_image_to_its_film_and_on_by_keys(tab: Page, served: str, copied: Path) -> None:
    trace = deediff.read_trace(copied / "mnist_tiny" / "traces" / TRACE)
    full = find_full(trace)
    assert full is not None
    table = image_distances(trace, full).set_index("sample").sort_values("change", ascending=False, kind="stable")
    first, second = (int(number) for number in table.index[:2])
    layers = trace.exit_layers()

    tab.goto(f"{served}/images?run=mnist_tiny&trace={TRACE}")
    expect(tab.locator(".clickable figure")).to_have_count(50, timeout=PATIENCE)
    wait_until_drawn(tab)
    tab.locator(".st-key-order").click()
    tab.get_by_role("option", name="Change").click()
    caption = f"{first} · {table['change'].iloc[0]:.1f}"
    expect(tab.locator("figcaption").first).to_have_text(caption, timeout=PATIENCE)
    wait_until_drawn(tab)
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
    path, (exits, u) = exported(tab, f"sample-{first}"), recorded(copied, TRACE)
    assert path["timestep"].tolist() == trace.timesteps
    assert path["exit_layer"].tolist() == exits[first].tolist()
    np.testing.assert_allclose(path[[f"u_{i}" for i in range(u.shape[2])]], u[first], rtol=1e-6)

    # Clicking a cell chooses timestep and layer everywhere; so does a frame of the film.
    t = trace.timesteps[10]
    click_point(tab, ".st-key-plot-sample-path", t, 3)
    expect(tab).to_have_url(re.compile(f"t={t}.*layer=3"), timeout=PATIENCE)
    wait_until_drawn(tab)
    expect(tab.locator(".st-key-film-0 figure.chosen figcaption")).to_have_text(f"t = {t}")
    tab.locator(".st-key-film-1 figure").last.click()
    expect(tab).to_have_url(re.compile(f"t={trace.timesteps[-1]}(&|$)"), timeout=PATIENCE)
    wait_until_drawn(tab)

    tab.keyboard.press("ArrowRight")
    film_of(tab, second)
    tab.keyboard.press("ArrowLeft")
    film_of(tab, first)
    tab.get_by_role("link", name="All images").click()
    tab.wait_for_url("**/images?*", timeout=PATIENCE)
    wait_until_drawn(tab)
    expect(tab.locator("figure.chosen figcaption")).to_have_text(caption, timeout=PATIENCE)


def figures(page: Page) -> Locator:
    return page.locator(".st-key-images-A figure")


def numbers(page: Page) -> list[int]:
    """The samples on the page."""
    wait_until_drawn(page)
    return [int(n) for n in figures(page).evaluate_all("all => all.map(f => f.dataset.number)")]


def begins_with(page: Page, number: int) -> None:
    expect(figures(page).first).to_have_attribute("data-number", str(number), timeout=PATIENCE)


def test_pages_follow_the_order_and_the_address_reopens_them(tab: Page, served: str, copied: Path) -> None:
    blocks = recorded(copied, MILDER)[0].sum(axis=1)
    rising, falling = np.argsort(blocks, kind="stable"), np.argsort(-blocks, kind="stable")
    tab.goto(f"{served}/images?run=mnist_tiny&trace={MILDER}")
    begins_with(tab, 0)
    assert numbers(tab) == list(range(50))
    tab.locator(".st-key-page").get_by_label("Page 2", exact=True).click()
    begins_with(tab, 50)
    assert numbers(tab) == list(range(50, 100))
    tab.locator(".st-key-order").click()
    tab.get_by_role("option", name="Mean exit layer").click()
    begins_with(tab, rising[50])
    assert numbers(tab) == rising[50:100].tolist()
    tab.locator(".st-key-reverse label").click()
    begins_with(tab, falling[50])
    assert numbers(tab) == falling[50:100].tolist()
    table = exported(tab, "images-A")
    assert table["sample"].tolist() == falling[50:100].tolist()
    np.testing.assert_allclose(table["mean_exit_layer"], blocks[falling[50:100]] / 50, rtol=1e-6)
    link = reopened(tab)
    begins_with(tab, falling[50])
    assert numbers(tab) == falling[50:100].tolist()
    assert tab.url == link


def test_a_sample_is_reopened_by_its_address(tab: Page, served: str, copied: Path) -> None:
    t, exits = meta_of(copied, TRACE)["timesteps"][20], recorded(copied, TRACE)[0]
    order = np.argsort(exits.sum(axis=1), kind="stable")
    header, place = tab.locator(".st-key-sample_header"), f"Sample {order[7]} of {TRACE} · 8 of {len(order):,}"
    tab.goto(f"{served}/sample?run=mnist_tiny&trace={TRACE}&order=exit&sample={order[7]}")
    expect(header).to_contain_text(place, timeout=PATIENCE)
    wait_until_drawn(tab)
    click_point(tab, ".st-key-plot-sample-path", t, 5)
    expect(tab).to_have_url(re.compile(f"t={t}.*layer=5"), timeout=PATIENCE)
    wait_until_drawn(tab)
    link = reopened(tab)
    expect(header).to_contain_text(place, timeout=PATIENCE)
    wait_until_drawn(tab)
    assert tab.url == link
    expect(tab.locator(".st-key-chosen-layer input")).to_have_value("5")


def test_a_box_makes_a_cohort_that_the_heatmap_counts(tab: Page, served: str, copied: Path) -> None:
    trace = deediff.read_trace(copied / "mnist_tiny" / "traces" / TRACE)
    layers = trace.exit_layers()
    mean = layers.mean(axis=1)
    tab.goto(f"{served}/images?run=mnist_tiny&trace={TRACE}&size=20&map_y=gflops")
    map_of = ".st-key-plot-sample-map"
    tab.locator(f"{map_of} .js-plotly-plot[data-drawn]").wait_for(timeout=PATIENCE)
    wait_until_drawn(tab)
    drawn = tab.locator(f"{map_of} .js-plotly-plot").evaluate(
        "gd => [gd._fullLayout.xaxis.range, gd._fullLayout.yaxis.range]"
    )
    (left, right), (low, high) = drawn
    few = np.sort(mean)[: len(mean) // 2]
    gap = int(np.diff(few).argmax())  # no point lies near the edge of the box
    middle = float(few[gap : gap + 2].mean())
    start, end = place(tab, map_of, left + 0.002 * (right - left), high), place(tab, map_of, middle, low)
    tab.mouse.move(start[0], start[1] + 2)
    tab.mouse.down()
    tab.mouse.move(end[0] - 20, end[1] - 20)
    tab.mouse.move(end[0], end[1] - 2)
    tab.mouse.up()
    wanted = np.flatnonzero(mean <= middle)
    field = tab.locator(".st-key-samples input")
    expect(field).to_have_value(samples_to_text(wanted.tolist()), timeout=PATIENCE)
    wait_until_drawn(tab)
    tab.goto(tab.url.replace("/images?", "/trends?"))
    expect(tab.get_by_text(f"{len(wanted)} samples × {layers.shape[1]} steps").first).to_be_visible(timeout=PATIENCE)
    ratio = layers[wanted].mean() / trace.num_blocks
    expect(tab.get_by_text(f"{ratio:.3f}", exact=True).first).to_be_visible()
