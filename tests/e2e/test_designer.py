"""The plan designer in a browser: a click on the ladder and a dragged handle change plan, cost, images and link."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

import deediff
from deediff.bench.browser import PATIENCE, wait_until_drawn
from deediff.diffusion.schedule import Schedule
from deediff.plans.text import steps_from_text
from deediff.search.start import uniform_plan
from tests.e2e.conftest import meta_of
from tests.e2e.screen import check_divided

pytestmark = pytest.mark.e2e
STEPS = "999:input,700,450,200"
LINE = ".timeline"


def open_page(page: Page, address: str) -> None:
    page.goto(f"{address}/designer?run=mnist_tiny&steps={STEPS}&rival=8-uniform")
    expect(page.locator(f"{LINE} .handle")).to_have_count(4, timeout=PATIENCE)
    expect(page.locator(".gallery img")).to_have_count(48, timeout=PATIENCE)
    wait_until_drawn(page)


def steps_of(page: Page) -> str:
    return parse_qs(urlsplit(page.url).query)["steps"][0]


def first_image(page: Page) -> str | None:
    return page.locator(".gallery img").first.get_attribute("src")


def row_of(page: Page, label: str) -> int:
    labels = page.locator(f"{LINE} .label").all()
    return next(r for r, found in enumerate(labels) if (found.text_content() or "").startswith(label))


def test_a_click_on_the_ladder_changes_what_a_step_does(tab: Page, served: str, copied: Path) -> None:
    open_page(tab, served)
    before = first_image(tab)
    tab.locator(f'{LINE} [data-cell="1-{row_of(tab, "exit 3")}"]').click()
    expect(tab).to_have_url(re.compile("700%3A3"), timeout=PATIENCE)
    cost = meta_of(copied, "ddim50-never")["cost"]
    full = cost["embed"] + sum(cost["blocks"]) + cost["decode"]
    spent = 2 * full + cost["embed"] + sum(cost["blocks"][:3]) + cost["heads"][3]
    title = f"{spent:.3g} GFLOPs per image"
    expect(tab.get_by_text(title)).to_be_visible(timeout=PATIENCE)
    expect(tab.locator(".gallery img").first).not_to_have_attribute("src", before or "", timeout=PATIENCE)


def drag(page: Page, handle: Locator, by: float) -> None:
    box = handle.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + by / 2, y, steps=4)
    page.mouse.move(x + by, y, steps=4)
    page.mouse.up()


def test_a_dragged_handle_moves_its_timestep_and_stays_between_its_neighbours(tab: Page, served: str) -> None:
    open_page(tab, served)
    drag(tab, tab.locator(f'{LINE} .handle[data-k="2"]'), 60)
    tab.wait_for_function("!location.search.includes('450')", timeout=PATIENCE)
    moved = steps_from_text(steps_of(tab))
    assert [step.timestep for step in moved][:2] == [999, 700]
    assert 200 < moved[2].timestep < 450
    wait_until_drawn(tab)
    drag(tab, tab.locator(f'{LINE} .handle[data-k="2"]'), 2000)
    expect(tab).to_have_url(re.compile("%2C201%2C200|,201,200"), timeout=PATIENCE)


def test_keys_move_and_remove_a_step(tab: Page, served: str) -> None:
    open_page(tab, served)
    handle = tab.locator(f'{LINE} .handle[data-k="1"]')
    handle.focus()
    handle.press("Shift+ArrowRight")
    expect(tab).to_have_url(re.compile("690"), timeout=PATIENCE)
    wait_until_drawn(tab)
    tab.locator(f'{LINE} .handle[data-k="3"]').press("Delete")
    expect(tab.locator(f"{LINE} .handle")).to_have_count(3, timeout=PATIENCE)
    expect(tab).not_to_have_url(re.compile("200"), timeout=PATIENCE)


def test_the_divider_parts_the_plan_from_the_full_network_and_from_the_rival(
    tab: Page, served: str, copied: Path
) -> None:
    steps = "999:input,700:3,450,200"
    tab.goto(f"{served}/designer?run=mnist_tiny&plan=8-uniform&steps={steps}&rival=8-uniform&images_as=wipe")
    stacks = tab.locator(".st-key-designer-wipe .stack")
    expect(stacks).to_have_count(16, timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    model = deediff.load(copied / "mnist_tiny")
    seed = int(parse_qs(urlsplit(tab.url).query)["designer seed"][0])

    def image(**sampler: Any) -> np.ndarray:
        *_, last = deediff.sample(model, num_samples=16, batch_size=16, seed=seed, **sampler)
        return np.rint((last.x[0, 0].clamp(-1, 1).numpy() + 1) * 127.5)

    uniform = uniform_plan(model.num_blocks, Schedule(), 8)
    texts = (steps, "999,700,450,200")  # the plan, and the full network at its timesteps
    a, b = (image(plan=replace(uniform, steps=steps_from_text(text))) for text in texts)
    check_divided(stacks.first, a, b)
    tab.keyboard.press("f")
    check_divided(stacks.first, b, a)
    tab.get_by_role("button", name="Flip").click()
    tab.locator(".st-key-wipe_b").click()
    tab.get_by_role("option", name="Rival: 8-uniform").click()
    expect(tab.locator(".st-key-designer-wipe .right")).to_have_text("B: Rival: 8-uniform", timeout=PATIENCE)
    wait_until_drawn(tab)
    check_divided(stacks.first, a, image(plan=uniform))
