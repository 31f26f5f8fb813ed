"""*Compare* as a person uses it: clicks pick, hovering tells exact values, exports are the table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.analysis.compare import comparison_table
from deediff.bench.browser import PATIENCE, settle
from tests.e2e.conftest import SHOTS, TRACES, click_point, exported, hover_point

pytestmark = pytest.mark.e2e
PLOT = ".st-key-plot-compare"
BOLD = "ddim50-threshold-0.11"


@pytest.fixture(scope="module")
def counted(copied: Path) -> pd.DataFrame:
    """What the command line says of these traces."""
    table = comparison_table([deediff.read_trace(copied / "mnist_tiny" / "traces" / name) for name in TRACES])
    return table.set_index("trace", drop=False)


def open_page(page: Page, address: str, **link: str) -> None:
    query = "&".join(f"{key}={value}" for key, value in {"run": "mnist_tiny", "trace": TRACES[0], **link}.items())
    page.goto(f"{address}/compare?{query}")
    expect(page.locator(PLOT)).to_be_visible(timeout=60_000)
    expect(page.get_by_text("more traces are being compared")).to_have_count(0, timeout=60_000)
    settle(page)


def rows_of_images(page: Page) -> list[str]:
    """The traces whose images are shown."""
    return [text.split("mnist_tiny/")[1] for text in page.get_by_text("· mnist_tiny/").all_text_contents()]


def test_a_click_picks_a_trace_and_another_takes_it_away(tab: Page, served: str, counted: pd.DataFrame) -> None:
    open_page(tab, served, trace="ddim50-threshold-0.1", picked=f"mnist_tiny/{TRACES[0]},mnist_tiny/{BOLD}")
    before = rows_of_images(tab)
    row = counted.loc[BOLD]
    x, y = row["gflops_per_step"] * 50, row["fd-mnist"]
    said = hover_point(tab, PLOT, x, y)
    assert f"{x:.5g} GFLOPs per image, {row['seconds_per_image']:.4g} s per image" in said
    assert f"fd-mnist {y:.5g}" in said
    assert before == [TRACES[0], BOLD]
    click_point(tab, PLOT, x, y)
    expect(tab.get_by_text(f"mnist_tiny/{BOLD}")).to_have_count(0)
    settle(tab)
    assert rows_of_images(tab) == [name for name in before if name != BOLD]
    click_point(tab, PLOT, x, y)
    expect(tab.get_by_text(f"mnist_tiny/{BOLD}")).to_have_count(1)
    settle(tab)
    assert sorted(rows_of_images(tab)) == sorted(before)
    tab.screenshot(path=SHOTS / "compare.png")
    after, link = rows_of_images(tab), tab.url
    tab.goto("about:blank")
    tab.goto(link)  # what a colleague does
    expect(tab.get_by_text(f"mnist_tiny/{BOLD}")).to_have_count(1, timeout=PATIENCE)
    settle(tab)
    assert rows_of_images(tab) == after
    assert tab.url == link


def test_the_export_is_the_table_and_the_filter_narrows_both(tab: Page, served: str, counted: pd.DataFrame) -> None:
    open_page(tab, served)
    for question, kept in (("", list(TRACES)), ("threshold image_change>35", [BOLD])):
        box = tab.get_by_label("Filter")
        box.fill(question)
        box.press("Enter")
        expect(tab.get_by_text(f"{len(TRACES)} traces in full")).to_be_visible()
        settle(tab)
        table = exported(tab, "comparison").set_index("trace", drop=False)
        assert table.index.tolist() == kept
        expected = counted.loc[kept]
        for column in ("gflops_per_step", "seconds_per_image", "speed_up", "layer_ratio", "image_change"):
            assert table[column].tolist() == pytest.approx(expected[column].tolist(), nan_ok=True), column
        cells = tab.locator("[data-testid^=glide-cell-1-]")  # column 1 of the grid: the run
        assert cells.count() == len(kept)


def test_a_clicked_image_is_the_sample_of_every_page(tab: Page, served: str) -> None:
    open_page(tab, served)
    tab.locator("figure, .tile").nth(3).click()
    tab.wait_for_url("**sample=3*")
    settle(tab)


def test_a_figure_is_saved_as_svg(tab: Page, served: str) -> None:
    open_page(tab, served)
    tab.locator(PLOT).hover()
    with tab.expect_download() as download:
        tab.locator(f'{PLOT} [data-title="Save as SVG"]').click()
    text = Path(download.value.path()).read_text()
    assert text.startswith("<svg")
    assert "τ = 0.11" in text
