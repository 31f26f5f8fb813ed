"""*Compare* in a browser: clicks pick traces, hovering shows exact values, exports equal the table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.analysis.compare import comparison_table
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import (
    SHOTS,
    TRACES,
    click_point,
    drawn,
    exported,
    hover_point,
    meta_of,
    prices,
    recorded,
    reopened,
)

pytestmark = pytest.mark.e2e
PLOT, PUBLISHED = ".st-key-plot-compare", ".st-key-plot-published"
BOLD = "ddim50-threshold-0.11"


@pytest.fixture(scope="module")
def counted(copied: Path) -> pd.DataFrame:
    """The table of `deediff compare` of these traces."""
    table = comparison_table([deediff.read_trace(copied / "mnist_tiny" / "traces" / name) for name in TRACES])
    return table.set_index("trace", drop=False)


def open_page(page: Page, address: str, **link: str) -> None:
    query = "&".join(f"{key}={value}" for key, value in {"run": "mnist_tiny", "trace": TRACES[0], **link}.items())
    page.goto(f"{address}/compare?{query}")
    expect(page.locator(PLOT)).to_be_visible(timeout=60_000)
    wait_until_drawn(page)  # it has said whether images are still to be compared
    expect(page.get_by_text("comparing the images of")).to_have_count(0, timeout=60_000)
    wait_until_drawn(page)


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
    tab.mouse.move(0, 0)  # off the mark, whose label names the trace
    expect(tab.get_by_text(f"mnist_tiny/{BOLD}")).to_have_count(0)
    wait_until_drawn(tab)
    assert rows_of_images(tab) == [name for name in before if name != BOLD]
    click_point(tab, PLOT, x, y)
    expect(tab.get_by_text(f"mnist_tiny/{BOLD}")).to_have_count(1)
    wait_until_drawn(tab)
    assert sorted(rows_of_images(tab)) == sorted(before)
    tab.screenshot(path=SHOTS / "compare.png")
    after = rows_of_images(tab)
    link = reopened(tab)
    expect(tab.get_by_text(f"mnist_tiny/{BOLD}")).to_have_count(1, timeout=PATIENCE)
    wait_until_drawn(tab)
    assert rows_of_images(tab) == after
    assert tab.url == link


def test_the_export_is_the_table_and_the_filter_narrows_both(tab: Page, served: str, counted: pd.DataFrame) -> None:
    open_page(tab, served)
    for question, kept in (("", list(TRACES)), ("threshold image_change>35", [BOLD])):
        box = tab.get_by_label("Filter")
        box.fill(question)
        box.press("Enter")
        expect(tab.get_by_text(f"All values of {len(TRACES)} traces")).to_be_visible()
        wait_until_drawn(tab)
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
    wait_until_drawn(tab)


def test_a_figure_is_saved_as_svg(tab: Page, served: str) -> None:
    open_page(tab, served)
    tab.locator(PLOT).hover()
    with tab.expect_download() as download:
        tab.locator(f'{PLOT} [data-title^="Save as SVG"]').click()
    text = Path(download.value.path()).read_text()
    assert text.startswith("<svg")
    assert "τ = 0.11" in text


def gflops_per_image(root: Path, trace: str) -> float:
    """Counted over the rows."""
    exits, _ = recorded(root, trace)
    price = prices(root, trace, asked=bool(meta_of(root, trace)["policy_needs_uncertainty"]))
    return float(price[exits].sum(axis=1).mean())


def seconds_per_image(root: Path, trace: str) -> float:
    meta = meta_of(root, trace)
    return float(meta["wall_seconds"] / meta["num_samples"])


COSTS = {"GFLOPs": gflops_per_image, "seconds": seconds_per_image}


def marks(page: Page) -> dict[str, tuple[float, float]]:
    """The positions of the traces in the figure, by run/trace."""
    found: dict[str, tuple[float, float]] = {}
    for line in drawn(page, PLOT):
        keys = [key for key, *_ in line.get("customdata", [])]
        found |= dict(zip(keys, zip(line["x"], line["y"], strict=True), strict=False))
    return found


def test_cost_is_counted_from_the_rows_and_quality_read_from_its_file(tab: Page, served: str, copied: Path) -> None:
    open_page(tab, served)
    table = exported(tab, "comparison").set_index("trace")
    assert sorted(table.index) == sorted(TRACES)
    for unit, column in (("GFLOPs", "gflops_per_image"), ("seconds", "seconds_per_image")):
        tab.locator(".st-key-cost").get_by_role("radio", name=unit).click()
        expect(tab.locator(f"{PLOT} .xtitle")).to_contain_text(f"{unit} per image", timeout=PATIENCE)
        wait_until_drawn(tab)
        found = marks(tab)
        assert sorted(found) == [f"mnist_tiny/{trace}" for trace in sorted(TRACES)]
        for trace in TRACES:
            quality = json.loads((copied / "mnist_tiny" / "traces" / trace / "quality.json").read_text())["metrics"][0]
            cost = COSTS[unit](copied, trace)
            assert found[f"mnist_tiny/{trace}"] == pytest.approx((cost, quality["value"])), trace
            assert table.loc[trace, column] == pytest.approx(cost), trace
            assert table.loc[trace, quality["metric"]] == pytest.approx(quality["value"]), trace


def points(page: Page) -> list[tuple[float, float]]:
    """Cost and FID of every published mark; all are hollow."""
    lines = drawn(page, PUBLISHED)
    assert all(symbol.endswith("-open") for line in lines for symbol in line["marker"]["symbol"])
    return sorted((x, y) for line in lines for x, y in zip(line["x"], line["y"], strict=True))


def test_published_points_are_those_of_the_tables(tab: Page, served: str, shared: Path) -> None:
    printed = json.loads((shared / "reference" / "published_results.json").read_text())
    tables = [row for name in ("table1", "table3_finetuned", "table4_frozen") for row in printed[name]]
    open_page(tab, served, cost="GFLOPs")
    assert (22.75, 79.34) in points(tab)
    assert set(points(tab)) == {(row["gflops"], row["fid"]) for row in tables}
    open_page(tab, served, cost="seconds")
    pairs = [(seconds, fid) for family in printed["duodiff_cifar10_fid_seconds"].values() for fid, seconds in family]
    assert points(tab) == sorted(pairs)
    mine = {y for line in drawn(tab, PLOT) for y in line["y"]}
    assert not mine & {fid for _, fid in pairs}  # another protocol: never beside ours
