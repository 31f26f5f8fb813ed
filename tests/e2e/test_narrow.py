"""Pages at the width of a phone: nothing is cut off, in either theme."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from deediff.bench.browser import wait_until_drawn
from tests.e2e.conftest import SHOTS
from tests.e2e.test_headings import PAGES, open_page

pytestmark = pytest.mark.e2e
CUT = """[...document.querySelectorAll('.plot[data-drawn]')].flatMap(plot => {
  const edge = plot.getBoundingClientRect();
  return [...plot.querySelectorAll('.xtitle, .ytitle, .x2title, .y2title, .legendtext')].filter(text => {
    const box = text.getBoundingClientRect();
    const sideways = box.left < edge.left - 1 || box.right > edge.right + 1;
    return sideways || box.top < edge.top - 1 || box.bottom > edge.bottom + 1;
  }).map(text => text.textContent);
})"""
HIDDEN = """[...document.querySelectorAll('.plot[data-drawn] .legend')].filter(
  legend => legend.querySelector('.scrollbar')?.getBoundingClientRect().height > 0).length"""


@pytest.fixture
def phone(tab: Page) -> Iterator[Page]:
    tab.set_viewport_size({"width": 390, "height": 3000})  # so high that every figure is drawn
    yield tab
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size({"width": 1440, "height": 900})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_phone(scheme: str, phone: Page, served: str) -> None:
    phone.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    wrong = {}
    for name in PAGES:
        open_page(phone, served, name, "?run=mnist_tiny")
        wait_until_drawn(phone)
        main = phone.locator("[data-testid=stMain]")
        sideways = main.evaluate("e => e.scrollWidth - e.clientWidth")
        wrong[name] = [*phone.evaluate(CUT), *["sideways"] * sideways, *["a legend"] * phone.evaluate(HIDDEN)]
        phone.screenshot(path=SHOTS / f"{name}-390-{scheme}.png")
    assert {name: found for name, found in wrong.items() if found} == {}
