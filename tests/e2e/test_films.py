"""Films and images of equal seed in a browser: one clock plays them all, one divider shows two of them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

import deediff
from deediff.bench.browser import PATIENCE, wait_until_drawn
from tests.e2e.conftest import SHOTS

A, B, NUMBER = "ddim50-threshold-0.11", "ddim50-never", 3
STACK = ".st-key-images-wipe .stack"
OF_PAIR = f"run=mnist_tiny&trace={A}&b={B}"

pytestmark = pytest.mark.e2e


def stored(root: Path, trace: str, number: int) -> np.ndarray:
    """(H,W) the image in the trace."""
    found = deediff.read_trace(root / "mnist_tiny" / "traces" / trace).samples([number])
    return np.asarray(Image.open(io.BytesIO(found["png"].iloc[0])).convert("L"), dtype=int)


def on_screen(page: Page, size: int) -> np.ndarray:
    """(size,size) the painted pair, read at the middle of every pixel of the image."""
    shot = page.locator(STACK).first.screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(shot)).convert("L"), dtype=int)
    rows, columns = (((np.arange(size) + 0.5) * side / size).astype(int) for side in pixels.shape)
    return pixels[np.ix_(rows, columns)]


def test_the_divider_shows_a_on_its_left_and_b_on_its_right(tab: Page, served: str, copied: Path) -> None:
    tab.goto(f"{served}/images?{OF_PAIR}&size=20&images_as=wipe")
    tab.locator(STACK).first.wait_for(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    number = int(tab.locator(f"{STACK} + figcaption").first.inner_text())
    a, b = stored(copied, A, number), stored(copied, B, number)
    size = len(a)
    assert (np.abs(a - b) > 40).sum() > 5

    def check(left: np.ndarray, right: np.ndarray, place: float) -> None:
        edge, seen = round(place * size), on_screen(tab, size)
        assert np.abs(seen[:, : edge - 2] - left[:, : edge - 2]).max(initial=0) <= 8
        assert np.abs(seen[:, edge + 2 :] - right[:, edge + 2 :]).max(initial=0) <= 8

    check(a, b, 0.5)
    box = tab.locator(STACK).first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 0.5 * box["width"], middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=3)
    tab.mouse.up()
    check(a, b, 0.8)
    tab.keyboard.press("f")
    check(b, a, 0.8)
    expect(tab.locator(".st-key-images-wipe .left")).to_have_text(re.compile("^B: "))
    divider = tab.get_by_label("Divider")
    before = int(divider.input_value())
    divider.press("ArrowLeft")
    assert int(divider.input_value()) == before - 1
    tab.screenshot(path=SHOTS / "wipe.png")

    tab.get_by_role("radio", name="Side by side").click()
    expect(tab.locator(".st-key-images-A figure").first).to_be_visible(timeout=PATIENCE)
    expect(tab).not_to_have_url(re.compile("images_as"), timeout=PATIENCE)
    tab.go_back()
    expect(tab.locator(STACK).first).to_be_visible(timeout=PATIENCE)


def test_one_button_plays_every_film_at_the_same_time(tab: Page, served: str) -> None:
    tab.goto(f"{served}/sample?{OF_PAIR}&sample={NUMBER}&t=999")
    films = tab.locator(".st-key-film-player figcaption")
    films.first.wait_for(timeout=3 * PATIENCE)
    wait_until_drawn(tab)
    assert films.count() == 4  # A, the full network, B, and A's x_t
    play = tab.get_by_role("button", name="Play")
    assert play.count() == 1
    before = films.first.inner_text()
    play.click()
    expect(films.first).not_to_have_text(before, timeout=PATIENCE)
    seen = films.evaluate_all("all => all.map(caption => caption.textContent.match(/t = \\d+/)[0])")
    assert len(set(seen)) == 1
    assert seen[0] == tab.locator(".st-key-film-clock output").inner_text()
    tab.get_by_role("button", name="Stop").click()
    expect(tab).not_to_have_url(re.compile(r"[?&]t=999(&|$)"), timeout=PATIENCE)
