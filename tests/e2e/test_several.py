"""Several people use one server: each sees the answer to their own slider, and nobody an error."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deediff.bench.browser import PATIENCE
from tests.e2e.conftest import leaving, recorded

pytestmark = pytest.mark.e2e
PEOPLE = 10


def test_ten_people_move_their_sliders_at_once(tab: Page, served: str, copied: Path) -> None:
    browser = tab.context.browser
    assert browser is not None
    contexts = [browser.new_context(viewport={"width": 1000, "height": 700}) for _ in range(PEOPLE)]
    try:
        pages = [context.new_page() for context in contexts]
        for page in pages:
            page.set_default_timeout(PATIENCE)
            page.goto(f"{served}/trends?run=mnist_tiny&trace=ddim50-never-full&tau=0.1", wait_until="commit")
        sliders = [page.locator(".st-key-tau [role=slider], .st-key-tau input[type=range]").first for page in pages]
        for slider in sliders:
            slider.wait_for(state="attached")
        for number, slider in enumerate(sliders):  # all before any answer is waited for
            for _ in range(number + 1):
                slider.press("ArrowRight")
        _, u = recorded(copied, "ddim50-never-full")
        for number, page in enumerate(pages):
            tau = 0.1 + 0.005 * (number + 1)
            page.wait_for_url(re.compile(rf"tau={tau:g}(&|$)"))
            ratio = leaving(u, round(tau, 3)).mean() / u.shape[-1]
            values = page.locator("[data-testid=stMetricValue]")
            expect(values.filter(has_text=f"{ratio:.3f}").first).to_be_visible(timeout=PATIENCE)
            expect(page.locator("[data-testid=stException], [data-testid=stAlertContentError]")).to_have_count(0)
    finally:
        for context in contexts:
            context.close()
