"""The browser's history: one entry per change that the reader makes."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import click_point

pytestmark = pytest.mark.e2e
FULL, OTHER = "ddim50-never-full", "ddim50-threshold-0.1"
HEATMAP = ".st-key-plot-exit-heatmap"
SELECTION = {"run", "trace", "b", "tau", "t", "layer", "sample", "checkpoint"}


def keys(page: Page) -> set[str]:
    return set(parse_qs(urlsplit(page.url).query))


def entries(page: Page) -> int:
    return int(page.evaluate("history.length"))


def settled(page: Page, address: str = "**tau=*") -> None:
    page.wait_for_url(address, timeout=PATIENCE)
    wait_until_drawn(page)


def choose(page: Page, key: str, option: str) -> None:
    page.locator(f".st-key-{key} input").click()
    page.get_by_role("option", name=re.compile(rf"^{re.escape(option)}( · |$)")).click()  # some have a date


def test_each_choice_is_one_entry_and_back_undoes_it(tab: Page, served: str, copied: Path) -> None:
    times = deediff.read_trace(copied / "mnist_tiny" / "traces" / FULL).timesteps
    tab.goto("about:blank")
    before = entries(tab)
    tab.goto(f"{served}/trends?trace={FULL}")
    settled(tab)
    assert entries(tab) == before + 1  # the defaults that the page has filled in are no entry of their own
    plain = tab.url
    assert not {"layer", "sample", "b"} & keys(tab)

    click_point(tab, HEATMAP, times[20], 5)
    settled(tab, "**layer=5*")
    sample = tab.locator(".st-key-chosen-sample input")
    sample.fill("7")
    sample.press("Enter")
    settled(tab, "**sample=7*")
    choose(tab, "b", OTHER)
    settled(tab, f"**b={OTHER}*")
    assert entries(tab) == before + 4

    tab.go_back()
    settled(tab, re.compile(r"^(?!.*[?&]b=).*sample=7"))
    expect(tab.locator(".st-key-b input")).to_have_value("none")
    tab.go_back()
    settled(tab, re.compile(r"^(?!.*sample=).*layer=5"))
    expect(tab.locator(".st-key-chosen-sample input")).to_have_value("")
    tab.go_back()
    settled(tab, plain)
    expect(tab.locator(".st-key-chosen-layer input")).to_have_value("")
    tab.go_forward()
    settled(tab, "**layer=5*")
    expect(tab.locator(".st-key-chosen-layer input")).to_have_value("5")


def test_a_page_has_no_parameters_of_another(tab: Page, served: str) -> None:
    tab.goto(f"{served}/images?trace={FULL}&order=exit&size=20")
    settled(tab)
    assert {"order", "size"} < keys(tab)
    before = entries(tab)
    tab.get_by_role("link", name="Exit trends").click()
    settled(tab, f"{served}/trends?*tau=*")
    assert keys(tab) <= SELECTION
    assert entries(tab) == before + 1
    tab.go_back()
    settled(tab, "**/images?*order=exit*")
    tab.locator("figure").nth(3).click()
    settled(tab, "**/sample?*sample=*")
    assert keys(tab) <= SELECTION | {"order", "reverse", "sample_view"}  # which that page follows, too
    tab.go_back()
    settled(tab, "**/images?*size=20*")
    expect(tab.locator("figure")).to_have_count(20)


def test_each_page_has_its_title_in_the_browser(tab: Page, served: str) -> None:
    tab.goto(f"{served}/images?trace={FULL}")
    settled(tab)
    expect(tab).to_have_title("Images · DeeDiff explorer")
    tab.get_by_role("link", name="Exit trends").click()
    expect(tab).to_have_title("Exit trends · DeeDiff explorer", timeout=PATIENCE)
