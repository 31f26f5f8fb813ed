"""*Compare* in a browser: clicks pick traces, hovering shows exact values, exports equal the table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

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
    place,
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
    assert f"{x:.5g} GFLOPs per image ({x / 50:.4g} per step), {row['seconds_per_image']:.4g} s per image" in said
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
        tab.locator(f"{PLOT} [data-title='Save figure']").click()
        tab.locator("dialog.save [value=screen]").check()
        tab.locator("dialog.save [value=svg]").click()
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
    page.locator(PUBLISHED).scroll_into_view_if_needed()
    lines = drawn(page, PUBLISHED)
    assert all(symbol.endswith("-open") for line in lines for symbol in line["marker"]["symbol"])
    return sorted((x, y) for line in lines for x, y in zip(line["x"], line["y"], strict=True))


def test_published_points_are_those_of_the_tables(tab: Page, served: str, shared: Path) -> None:
    printed = json.loads((shared / "reference" / "published_results.json").read_text())
    tables = [row for name in ("table1", "table3_finetuned", "table4_frozen") for row in printed[name]]
    open_page(tab, served, cost="GFLOPs")
    assert (22_750, 79.34) in points(tab)  # of 1 000 steps
    assert {(round(x / 1000, 6), fid) for x, fid in points(tab)} == {(row["gflops"], row["fid"]) for row in tables}
    open_page(tab, served, cost="seconds")
    pairs = [(seconds, fid) for family in printed["duodiff_cifar10_fid_seconds"].values() for fid, seconds in family]
    assert points(tab) == sorted(pairs)
    mine = {y for line in drawn(tab, PLOT) for y in line["y"]}
    assert not mine & {fid for _, fid in pairs}  # another protocol: never beside ours


PLANS = "fd-mnist,plans,mnist-train,2048"


def found_in(front: dict[str, Any], limit: str, at: float) -> list[dict[str, Any]]:
    """With exits and without, from front.json: the best of at most this cost, or the cheapest of this quality."""
    winners = []
    for kinds in (("all",), ("uniform", "hand", "full", "ends")):
        plans = [plan for kind in kinds for plan in front[kind]["points"]]
        rows = [(p["gflops_per_image"], p["metrics"]["fd-mnist"]["value"], p) for p in plans]
        within = [(cost, value, p) for cost, value, p in rows if (cost if limit == "cost" else value) <= at]
        order = (lambda row: row[1]) if limit == "cost" else (lambda row: row[0])
        winners += [min(within, key=order)[2]] if within else []
    return winners


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    (x, y), target = place(page, PLOT, *start), place(page, PLOT, *end)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move((x + target[0]) / 2, (y + target[1]) / 2)
    page.mouse.move(*target)
    page.mouse.up()


def at(page: Page, key: str) -> float:
    return float(parse_qs(urlparse(page.url).query)[key][0])


def positions(page: Page) -> dict[str, float]:
    """Of both lines in the figure."""
    found: dict[str, float] = page.locator(f"{PLOT} .js-plotly-plot").evaluate(
        "gd => ({gflops: gd.layout.shapes[0].x0, 'fd-mnist': gd.layout.shapes[1].y0})"
    )
    return found


def test_a_dragged_line_names_the_winner_and_its_paired_difference(tab: Page, served: str, copied: Path) -> None:
    front = json.loads((copied / "mnist_tiny" / "front.json").read_text())
    open_page(tab, served, quality=PLANS)
    before = positions(tab)
    drag(tab, (before["gflops"], 8.0), (1.8, 7.0))
    tab.wait_for_url(lambda url: f"at_gflops={before['gflops']:g}&" not in url)
    drag(tab, (3.6, before["fd-mnist"]), (3.4, 5.9))
    tab.wait_for_url(lambda url: f"at_fd-mnist={before['fd-mnist']:g}&" not in url)
    wait_until_drawn(tab)
    budget, level = at(tab, "at_gflops"), at(tab, "at_fd-mnist")
    assert (budget, level) == pytest.approx((1.8, 5.9), rel=0.02)
    assert positions(tab) == {"gflops": budget, "fd-mnist": level}
    for limit, position, words in (("cost", budget, "best is"), ("quality", level, "cheapest is")):
        exits, rival = found_in(front, limit, position)
        text = tab.get_by_text(words).inner_text()
        value = exits["metrics"]["fd-mnist"]["value"]
        cost = exits["gflops_per_image"]
        assert f"{exits['plan']} (fd-mnist {value:.3g}, {cost:.3g} GFLOPs per image)" in text
        assert rival["plan"] in text
        (row,) = [row for row in exits["compared_with"] if row["plan"] == rival["plan"]]
        ends = [f"{row['differences']['fd-mnist'][end]:+.3g}".replace("-", "−") for end in ("value", "low", "high")]
        assert "{} [{}, {}]".format(*ends) in text
        assert "paired: equal seeds" in text
    said = [tab.get_by_text(words).inner_text() for words in ("best is", "cheapest is")]
    reopened(tab)
    expect(tab.get_by_text("cheapest is")).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(tab)
    assert [tab.get_by_text(words).inner_text() for words in ("best is", "cheapest is")] == said


def test_a_typed_budget_moves_the_line(tab: Page, served: str, copied: Path) -> None:
    front = json.loads((copied / "mnist_tiny" / "front.json").read_text())
    open_page(tab, served, quality=PLANS)
    box = tab.get_by_role("spinbutton", name="Budget (GFLOPs)")
    box.fill("1.2")
    box.press("Enter")
    tab.wait_for_url("**at_gflops=1.2&**")
    wait_until_drawn(tab)
    assert positions(tab)["gflops"] == 1.2
    assert found_in(front, "cost", 1.2)[0]["plan"] in tab.get_by_text("best is").inner_text()


@pytest.mark.parametrize("width", [1440, 900])
def test_labels_legend_and_mode_bar_do_not_overlap(width: int, tab: Page, served: str) -> None:
    tab.set_viewport_size({"width": width, "height": 900})
    try:
        for quality in (PLANS, ""):
            open_page(tab, served, **({"quality": quality} if quality else {}))
            tab.locator(PLOT).hover()
            boxes: list[list[float]] = tab.locator(f"{PLOT} .js-plotly-plot").evaluate(
                """gd => [...gd.querySelectorAll('.textpoint text, .annotation-text, .legend, .modebar')]
                    .map((e) => e.getBoundingClientRect()).filter((b) => b.width)
                    .map((b) => [b.left, b.top, b.right, b.bottom])"""
            )
            assert len(boxes) > 4
            for k, a in enumerate(boxes):
                for b in boxes[k + 1 :]:
                    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
                    assert min(across, down) < 2, (a, b)
            words = tab.locator(f"{PLOT} .js-plotly-plot text").all_text_contents()
            assert not [word for word in words if re.search(r"\d\.\d{5,}", word)]
    finally:
        tab.set_viewport_size({"width": 1440, "height": 900})
