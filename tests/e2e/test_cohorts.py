"""Cohorts and neighbours in a browser: a box is kept with a note, reopened by its link, and read by `trends`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.analysis.neighbours import embed_trace, extractor_for
from deediff.bench.browser import PATIENCE, wait_until_drawn
from deediff.cli import main
from deediff.traces.cohort import samples_to_text
from deediff.traces.cohort_file import read_cohorts
from tests.e2e.conftest import SHOTS, place, reopened

TRACE, MAP = "ddim50-threshold-0.11", ".st-key-plot-sample-map"

pytestmark = pytest.mark.e2e


def draw_box(page: Page, left: float, right: float) -> None:
    """Drag over the whole height of the map, between two values of its horizontal axis."""
    low, high = page.locator(f"{MAP} .js-plotly-plot").evaluate("gd => gd._fullLayout.yaxis.range")
    start, end = place(page, MAP, left, high), place(page, MAP, right, low)
    page.mouse.move(start[0], start[1] + 2)
    page.mouse.down()
    page.mouse.move(end[0] - 20, end[1] - 20)
    page.mouse.move(end[0], end[1] - 2)
    page.mouse.up()


def test_a_box_on_the_features_is_kept_exported_renamed_and_deleted(
    tab: Page, served: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied / "mnist_tiny"
    trace = deediff.read_trace(run / "traces" / TRACE)
    images = embed_trace(trace, extractor_for((1, 32)))
    centred = images.features - images.features.mean(axis=0, dtype=np.float64)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    first = centred @ (axis * np.sign(axis[np.abs(axis).argmax()]))
    order = np.sort(first)
    last = len(order) // 20  # the twentieth of the images at the right end of the axis
    gap = len(order) - last + int(np.diff(order[-last:-2]).argmax())  # no point lies near the edge of the box
    edge = float(order[gap : gap + 2].mean())
    wanted = images.numbers[first > edge]

    tab.goto(f"{served}/images?run=mnist_tiny&trace={TRACE}&size=20&map_x=feature1&map_y=exit&map_color=gflops")
    tab.locator(f"{MAP} .js-plotly-plot[data-drawn]").wait_for(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    _, right = tab.locator(f"{MAP} .js-plotly-plot").evaluate("gd => gd._fullLayout.xaxis.range")
    draw_box(tab, edge, right - 0.002 * (right - edge))
    expect(tab.locator(".st-key-samples input")).to_have_value(samples_to_text(wanted.tolist()), timeout=PATIENCE)
    wait_until_drawn(tab)
    tab.get_by_label("Keep the chosen samples as").fill("far right")
    tab.get_by_label("Note", exact=True).fill("exit early")
    tab.locator(".st-key-keep_cohort button, .st-key-keep-cohort button").click()
    row = tab.locator(".st-key-cohort_far_right")
    mean = trace.exit_layers()[wanted].mean()
    expect(row).to_contain_text(f"far right · {len(wanted)} samples · mean exit layer {mean:.2f}", timeout=PATIENCE)
    expect(row).to_contain_text("exit early")
    wait_until_drawn(tab)
    assert read_cohorts(run)["far right"].numbers == tuple(sorted(wanted.tolist()))
    tab.screenshot(path=SHOTS / "cohorts.png", full_page=True)

    with tab.expect_download() as download:
        row.get_by_text("CSV").click()
    file = tmp_path / "far right.csv"
    download.value.save_as(file)
    assert pd.read_csv(file)["sample"].tolist() == sorted(wanted.tolist())
    for samples in (str(file), "far right"):
        assert main(["trends", str(trace.path), "--samples", samples, "--json"]) == 0
        measured = json.loads(capsys.readouterr().out)["measured"]
        assert measured["num_samples"] == len(wanted)
        assert measured["layer_ratio"] == pytest.approx(mean / trace.num_blocks)

    link = reopened(tab)
    expect(row).to_contain_text("All samples", timeout=3 * PATIENCE)  # the button of the one that is shown
    wait_until_drawn(tab)
    assert tab.url == link
    row.get_by_role("button", name="Edit").click()
    tab.get_by_label("Name", exact=True).fill("odd ones")
    tab.get_by_role("button", name="Save", exact=True).click()
    expect(tab.locator(".st-key-cohort_odd_ones")).to_contain_text("exit early", timeout=PATIENCE)
    wait_until_drawn(tab)
    assert list(read_cohorts(run)) == ["odd ones"]
    tab.locator(".st-key-cohort_odd_ones").get_by_role("button", name="Edit").click()
    tab.get_by_role("button", name="Delete").click()
    expect(tab.locator(".st-key-cohort_odd_ones")).to_have_count(0, timeout=PATIENCE)
    expect(tab.locator(".st-key-samples input")).to_have_value("", timeout=PATIENCE)
    assert read_cohorts(run) == {}


def test_neighbours_of_a_clicked_image_are_the_nearest_in_the_features(tab: Page, served: str, copied: Path) -> None:
    trace = deediff.read_trace(copied / "mnist_tiny" / "traces" / TRACE)
    images = embed_trace(trace, extractor_for((1, 32)))

    def counted(number: int) -> list[str]:
        distances = np.sqrt(((images.features - images.features[number]).astype(np.float64) ** 2).sum(axis=1))
        return [f"{k} · {distances[k]:.3g}" for k in np.argsort(distances, kind="stable")[1:9]]

    tab.goto(f"{served}/images?run=mnist_tiny&trace={TRACE}&size=20")
    tab.locator(".st-key-images-A figure").nth(5).click()
    tab.wait_for_url("**/sample?*", timeout=PATIENCE)
    tab.get_by_role("radio", name="Neighbours").click()
    tiles = tab.locator(".st-key-generated-neighbours figure")
    expect(tiles.nth(8)).to_be_visible(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    assert tiles.locator("figcaption").all_inner_texts() == ["5 · this", *counted(5)]
    nearest = int(counted(5)[0].split(" ")[0])
    tiles.nth(1).click()
    expect(tiles.locator("figcaption").first).to_have_text(f"{nearest} · this", timeout=PATIENCE)
    wait_until_drawn(tab)
    assert tiles.locator("figcaption").all_inner_texts()[1:] == counted(nearest)
    tab.screenshot(path=SHOTS / "neighbours.png")
