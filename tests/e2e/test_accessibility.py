"""No page has an accessibility fault that axe-core calls serious or critical, and all of it is reached by keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Page, expect

from deediff.bench.app import explorer
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.conftest import REPO
from tests.e2e.test_headings import PAGES, open_page

pytestmark = pytest.mark.e2e
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
FAULTS = ("serious", "critical")
MORE = {"sample": ["?sample=3&sample_view=lens", "?sample=3&images_as=wipe"], "images": ["?b=ddim50-threshold-0.1"]}


def faults(tab: Page) -> list[str]:
    """What axe-core finds on the page, one line per element."""
    tab.evaluate(AXE)
    found: dict[str, Any] = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 10  # it has looked
    return [
        f"{rule['id']}: {node['html'][:200]}"
        for rule in found["violations"]
        if rule["impact"] in FAULTS
        for node in rule["nodes"]
    ]


def whole(tab: Page) -> None:
    """A window as high as the page: figures are drawn when they are scrolled into view."""
    height = tab.locator("[data-testid=stMainBlockContainer]").evaluate("e => e.scrollHeight")
    tab.set_viewport_size({"width": 1440, "height": min(int(height) + 80, 6000)})
    wait_until_drawn(tab)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The address of an explorer of the runs of this repository."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with explorer(REPO / "runs", log) as (_, address, _):
        yield address
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_serious_fault(name: str, tab: Page, shipped: str) -> None:
    found = {}
    for query in ("", *MORE.get(name, [])):
        open_page(tab, shipped, name, query)
        if name == "live":
            tab.locator(".st-key-sample button").click()
            expect(tab.get_by_role("heading", name="Full network")).to_be_visible(timeout=PATIENCE)
        whole(tab)
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            tab.wait_for_timeout(600)  # figures are drawn in the new colours
            found[scheme, query] = faults(tab)
        tab.emulate_media(color_scheme="light")
        tab.set_viewport_size({"width": 1440, "height": 900})
    assert {where: lines for where, lines in found.items() if lines} == {}


def test_axe_finds_no_serious_fault_without_runs(tab: Page, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with explorer(tmp_path / "runs", tmp_path / "log.txt") as (_, address, _):
        for name in PAGES:
            open_page(tab, address, name)
            for scheme in ("light", "dark"):
                tab.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
                assert faults(tab) == [], name
    tab.emulate_media(color_scheme="light")


FOCUSED = """() => {
  let e = document.activeElement;
  while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
  return e.alt || e.ariaLabel || e.textContent;
}"""


def test_images_are_one_stop_and_opened_by_keys(tab: Page, served: str) -> None:
    open_page(tab, served, "images", "?run=mnist_tiny&trace=ddim50-threshold-0.1&order=sample&reverse=False")
    first = tab.locator(".st-key-images-A figure img").first
    first.focus()
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate(FOCUSED).startswith("sample 0,")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(FOCUSED).startswith("sample 2,")
    tab.keyboard.press("Tab")
    assert not tab.evaluate(FOCUSED).startswith("sample ")
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/sample?*sample=2*", timeout=PATIENCE)


def test_the_buttons_of_a_figure_are_reached_by_keys(tab: Page, served: str) -> None:
    open_page(tab, served, "trends", "?run=mnist_tiny")
    bar = tab.locator(".st-key-plot-exit-heatmap .modebar")
    tab.locator(".st-key-csv-exit-heatmap button").first.focus()
    tab.keyboard.press("Tab")
    assert "axes" in tab.evaluate(FOCUSED)
    expect(bar).to_have_css("opacity", "1")
