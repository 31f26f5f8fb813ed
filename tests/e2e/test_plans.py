"""*Plans* in a browser: the marks are the validated numbers, and a click chooses a plan, which the link keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import click_point, drawn, exported, hover_point, reopened

pytestmark = pytest.mark.e2e
PLOT = ".st-key-plot-fronts"


@pytest.fixture(scope="module")
def front(copied: Path) -> dict[str, Any]:
    """The shipped front.json."""
    found: dict[str, Any] = json.loads((copied / "mnist_tiny" / "front.json").read_text())
    return found


def open_page(page: Page, address: str) -> None:
    page.goto(f"{address}/plans?run=mnist_tiny")
    expect(page.locator(f"{PLOT} .plot[data-drawn]")).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(page)


def test_the_figure_and_its_table_are_the_validated_numbers(tab: Page, served: str, front: dict[str, Any]) -> None:
    open_page(tab, served)
    line = next(trace for trace in drawn(tab, PLOT) if trace["name"] == "timesteps and exits")
    points = sorted(front["all"]["points"], key=lambda point: point["evaluations"])
    assert line["x"] == [point["gflops_per_image"] for point in points]
    assert line["y"] == [point["metrics"]["fd-mnist"]["value"] for point in points]
    table = exported(tab, "fronts").set_index("plan")
    for kind in ("uniform", "all"):
        for point in front[kind]["points"]:
            values = table.loc[point["plan"], ["fd-mnist low", "fd-mnist", "fd-mnist high"]]
            assert values.tolist() == [point["metrics"]["fd-mnist"][name] for name in ("low", "value", "high")]


def test_a_click_chooses_a_plan_and_the_link_keeps_it(tab: Page, served: str, front: dict[str, Any]) -> None:
    open_page(tab, served)
    point = max(front["all"]["points"], key=lambda point: point["evaluations"])
    x, y = point["gflops_per_image"], point["metrics"]["fd-mnist"]["value"]
    assert point["plan"] in hover_point(tab, PLOT, x, y)
    click_point(tab, PLOT, x, y)
    for _ in range(2):
        command = tab.locator("[data-testid=stCode]").first
        expect(command).to_contain_text(f"--plan {point['plan']}", timeout=PATIENCE)
        wait_until_drawn(tab)
        assert f"plan={point['plan']}" in reopened(tab)
        wait_until_drawn(tab)
