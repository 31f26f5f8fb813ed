"""Headings and titles of every page: what a screen reader's list of headings shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from deediff.bench.app import explorer
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.conftest import REPO

pytestmark = pytest.mark.e2e
PAGES = sorted(path.parent.name for path in (REPO / "app" / "views").glob("*/page.py"))
FIRST = "overview"  # at the bare address
BEFORE_SAMPLING = {"live"}  # pages without a section until a button is pressed
HEADINGS = """[...document.querySelectorAll('h1, h2, h3, h4, h5, h6, [role=heading]')]
  .filter(e => e.checkVisibility())
  .map(e => [Number(e.tagName[1]), e.querySelector('[data-heading-text]')?.textContent.trim() ?? e.textContent])"""


def open_page(tab: Page, address: str, name: str, query: str = "") -> None:
    tab.goto(f"{address}/{'' if name == FIRST else name}{query}", wait_until="commit")
    expect(tab.locator("h1")).to_be_visible(timeout=PATIENCE)
    wait_until_drawn(tab)


def checked(tab: Page, name: str) -> list[tuple[int, str]]:
    """The headings of a page, after the checks that hold for each page."""
    found: list[tuple[int, str]] = [(level, text) for level, text in tab.evaluate(HEADINGS)]
    levels = [level for level, _ in found]
    assert levels[0] == 1
    assert levels.count(1) == 1, found
    assert max(levels) <= 3
    assert [k for k in range(1, len(levels)) if levels[k] > levels[k - 1] + 1] == [], found  # none is left out
    assert all(text for _, text in found)
    path = "/" if name == FIRST else f"/{name}"
    links = tab.locator("[data-testid=stSidebarNavLink]").evaluate_all("all => all.map(a => [a.text, a.pathname])")
    assert next(text for text, to in links if to == path).endswith(found[0][1])  # after the name of an icon
    expect(tab).to_have_title(f"{found[0][1]} · DeeDiff explorer", timeout=PATIENCE)
    return found


def test_each_page_has_one_title_and_its_sections_in_order(tab: Page, served: str) -> None:
    titles = []
    for name in PAGES:
        open_page(tab, served, name, "?run=mnist_tiny")
        found = checked(tab, name)
        titles.append(found[0][1])
        if name not in BEFORE_SAMPLING:
            assert len(found) > 1, f"{name} has no section"
    assert len(set(titles)) == len(PAGES) == 11
    open_page(tab, served, "live")
    tab.locator(".st-key-sample button").click()
    expect(tab.get_by_role("heading", level=2, name="Full network")).to_be_visible(timeout=PATIENCE)
    checked(tab, "live")


def test_an_empty_folder_has_titles_too(tab: Page, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with explorer(tmp_path / "runs", tmp_path / "log.txt") as (_, address, _):
        for name in PAGES:
            open_page(tab, address, name)
            checked(tab, name)
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
