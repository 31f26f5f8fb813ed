"""*Overview* in a browser: three answers and the table on one screen, counted from the files, and links that select."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import SHOTS, drawn, exported, recorded

pytestmark = pytest.mark.e2e
TRACE = "ddim50-threshold-0.1"


def test_the_first_page_answers_on_one_screen_and_its_links_keep_the_selection(
    tab: Page, served: str, copied: Path
) -> None:
    tab.set_viewport_size({"width": 1440, "height": 900})
    tab.goto(f"{served}/?run=mnist_tiny&trace={TRACE}&layer=3")
    for name in ("worth", "where", "why"):
        expect(tab.locator(f".st-key-plot-{name} .plot[data-drawn]")).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(tab)
    table = tab.locator("table", has_text="plan with exits").bounding_box()
    assert table is not None
    assert table["y"] + table["height"] <= 900
    tab.screenshot(path=SHOTS / "overview.png")
    front = json.loads((copied / "mnist_tiny" / "front.json").read_text())
    best = exported(tab, "budgets").set_index("budget")
    for budget, row in best.iterrows():
        points = [p for kind in ("uniform", "hand", "full", "ends") for p in front.get(kind, {"points": []})["points"]]
        within = [p for p in points if p["evaluations"] <= float(str(budget)) + 0.1]
        rival = min(within, key=lambda p: p["metrics"][front["metric"]]["value"])
        assert row["without exits"] == rival["plan"]
        plan = next(p for p in front["all"]["points"] if p["plan"] == row["plan with exits"])
        compared = [r["differences"] for r in plan["compared_with"] if r["plan"] == rival["plan"]]
        if compared:
            assert row[f"difference of {front['metric']}"] == compared[0][front["metric"]]["value"]
    exits, _ = recorded(copied, TRACE)
    counts = exported(tab, "where").pivot(index="step", columns="exit_layer", values="count").to_numpy()
    np.testing.assert_array_equal(counts, [np.bincount(step, minlength=counts.shape[1]) for step in exits.T])
    assert drawn(tab, ".st-key-plot-worth")
    tab.get_by_role("link", name="Exits at any threshold").click()
    expect(tab.locator(".st-key-plot-exit-heatmap .plot[data-drawn]")).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(tab)
    assert "/trends?" in tab.url
    assert f"trace={TRACE}" in tab.url
    assert "layer=3" in tab.url
